"""Launching kernels without Triton's look at every argument, which takes longer than a small image takes the GPU."""

from __future__ import annotations

from typing import Any

import torch

from reblurkit.blur.backends.triton.pixel import WARPS

_compiled: dict[tuple[Any, ...], Any] = {}


def launch(
    kernel: Any,
    grid: tuple[int, int, int],
    tensors: tuple[Any, ...],
    numbers: tuple[int, ...],
    constants: tuple[Any, ...],
) -> None:
    """Launch a kernel on the tensors' device, on its current stream.

    The first call compiles, or finds in Triton's cache, what the types of the tensors and the constants ask for;
    later calls go to it directly. That is right as the kernels are specialised on nothing else: not on whole numbers,
    whose types they name, and on alignment only of tensors that this package allocates.

    Args:
        kernel: Made by ``triton.jit``.
        grid: How many programs.
        tensors: What the kernel takes first, on one device; None where it needs none, though not as the first.
        numbers: Whole numbers, which it takes after them.
        constants: What it takes as ``tl.constexpr``, at the end.
    """
    device = tensors[0].get_device()  # -1 on the CPU
    if device >= 0 and device != torch.cuda.current_device():  # where Triton launches
        with torch.cuda.device(device):
            launch(kernel, grid, tensors, numbers, constants)
        return
    types = [tensor is None or tensor.dtype for tensor in tensors]
    key = (id(kernel), device, *types, *constants)
    compiled = _compiled.get(key)
    if compiled is None:  # always under Triton's interpreter
        _compiled[key] = kernel[grid](*tensors, *numbers, *constants, num_warps=WARPS)
    else:
        compiled[grid](*tensors, *numbers, *constants)
