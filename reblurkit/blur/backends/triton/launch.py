"""Launching kernels without Triton's look at every argument, which takes longer than a small image takes the GPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reblurkit.blur.backends.triton.pixel import WARPS

_compiled: dict[tuple[Any, ...], Any] = {}


def launch(kernel: Any, grid: tuple[int, int, int], arguments: tuple[Any, ...], constants: tuple[Any, ...]) -> None:
    """Launch a kernel on the current stream of the current device.

    The first call compiles, or finds in Triton's cache, what the types of the arguments and the constants ask for;
    later calls go to it directly. That is right as the kernels are specialised on nothing else: not on whole numbers,
    whose types they name, and on alignment only of tensors that this package allocates.

    Args:
        kernel: Made by ``triton.jit``.
        grid: How many programs.
        arguments: Tensors, the first one not None, and whole numbers.
        constants: What the kernel takes as ``tl.constexpr``, after the arguments.
    """
    types = [argument.dtype if isinstance(argument, Tensor) else argument is None for argument in arguments]
    key = (id(kernel), arguments[0].device, *types, *constants)
    compiled = _compiled.get(key)
    if compiled is None:  # always under Triton's interpreter
        _compiled[key] = kernel[grid](*arguments, *constants, num_warps=WARPS)
    else:
        compiled[grid](*arguments, *constants)
