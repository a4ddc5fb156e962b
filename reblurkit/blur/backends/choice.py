"""Which backend computes a blur."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from reblurkit.errors import ArgumentError, BackendError

#: Of the image, flow_next and flow_prev; None where not needed.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Flows(NamedTuple):
    """The motion as every backend takes it.

    Attributes:
        next: F(t+1 -> t), ``(B, 2, H, W)``, in pixels.
        prev: F(t-1 -> t), likewise.
        exposure: Factor on both.
        max_flow: Range of the table; None for the line model.
    """

    next: Tensor
    prev: Tensor
    exposure: float
    max_flow: int | None


class Backend(Protocol):
    """What the module of a backend offers.

    Attributes:
        keeps_jacobian: Whether it keeps the output's derivative by the flows for their gradient,
            ``(2, B, H, W, C, 2)`` for (next, prev) and (u, v); else it keeps the image in rows of four channels.
        forward: ``(image, flows, jacobian) -> (blurred, saved)``: ``saved`` is what it keeps, if ``jacobian`` announces
            a gradient of the flows, else empty; its type is the one computed in.
        backward: ``(grad, image, flows, saved, need_image, need_flow) -> (grad_image, grad_next, grad_prev)``.
    """

    keeps_jacobian: bool
    forward: Callable[[Tensor, Flows, bool], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor, Tensor, Flows, Tensor, bool, bool], Gradients]


_MODULES = {"torch": "plain", "numba": "numba.host", "triton": "triton.host"}
_NAMES = ["auto", *_MODULES]
_INSTALL = {"numba": "pip install 'reblurkit[cpu]'", "triton": "pip install triton (Linux, comes with torch)"}


def choose(backend: str, device: torch.device) -> str:
    """Name of the backend to use: Triton on CUDA, Numba on the CPU where it is installed, plain torch elsewhere.

    Raises:
        ArgumentError: If there is no such backend.
        BackendError: If a backend asked for by name is not installed or cannot work on the device.

    Example:
        >>> choose("torch", torch.device("cpu"))
        'torch'
    """
    if backend not in _NAMES:
        raise ArgumentError(f"`backend` must be one of {_NAMES}, but is {backend!r}")
    if backend == "auto":
        preferred = {"cuda": "triton", "cpu": "numba"}.get(device.type, "torch")
        return preferred if preferred == "torch" or _installed(preferred) else "torch"
    if backend != "torch" and not _installed(backend):
        raise BackendError(f"backend={backend!r} needs the package {backend}: {_INSTALL[backend]}, or backend='auto'")
    if backend == "numba" and device.type != "cpu":
        raise BackendError(f"backend='numba' works on CPU tensors, but these are on {device}; use backend='auto'")
    if backend == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise BackendError(f"backend='triton' works on CUDA tensors, but these are on {device}; use backend='auto'")
    return backend


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def module_of(backend: str, device: torch.device) -> Backend:
    """The backend's module, imported when it is first used."""
    return _imported(_MODULES[choose(backend, device)])


@functools.cache
def _imported(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f"reblurkit.blur.backends.{name}"))
