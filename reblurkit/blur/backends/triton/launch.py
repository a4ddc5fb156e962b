"""Launching kernels without Triton's look at every argument, which takes longer than a small image takes the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reblurkit.blur.backends.triton.pixel import WARPS

_compiled: dict[tuple[Any, ...], Any] = {}


class Launcher:
    """A kernel, on tensors that have the same types and the same device in every call.

    The first launch compiles, or finds in Triton's cache, what the types and constants ask for; later ones go to it
    directly. That is right as the kernels are specialised on nothing else: not on whole numbers, whose types they name,
    and on alignment only of tensors that this package allocates.

    Args:
        kernel: Made by ``triton.jit``.
        device: The tensors'.
        grid: How many programs.
        rest: The kernel's last arguments, the same in every call.
        constants: What it takes after these as ``tl.constexpr``.
    """

    def __init__(
        self,
        kernel: Any,
        device: torch.device,
        grid: tuple[int, int, int],
        rest: tuple[Any, ...],
        constants: tuple[Any, ...] = (),
    ) -> None:
        self.kernel = kernel
        self._grid, self._rest, self._constants = grid, (*rest, *constants), constants
        self._device = device.index if device.type == "cuda" else None
        self._run: Callable[..., None] | None = None

    def __call__(self, *arguments: Any) -> None:
        """Launch on the device's current stream, with these arguments before the rest."""
        if self._device is not None and self._device != torch.cuda.current_device():  # where Triton launches
            with torch.cuda.device(self._device):
                self(*arguments)
        elif self._run is not None:
            self._run(*arguments, *self._rest)
        else:
            self._first(*arguments, *self._rest)

    def _first(self, *arguments: Any) -> None:
        """Launch, and keep the way for the next call if another size of these types has been compiled before."""
        types = [argument.dtype if isinstance(argument, Tensor) else argument is None for argument in arguments]
        key = (id(self.kernel), self._device, *types, *self._constants)
        compiled = _compiled.get(key)
        if compiled is None:  # always under Triton's interpreter
            _compiled[key] = self.kernel[self._grid](*arguments, num_warps=WARPS)
        else:
            self._run = compiled[self._grid]
            self._run(*arguments)
