"""One operator for the table and the line model, and the backends that compute it.

A backend is a module of the form of :class:`Backend`. Both of its functions are registered with torch as operators, so
that ``torch.compile`` and ``torch.export`` keep each as one node and ``torch.func.vmap`` has its rule; a
``torch.autograd.Function`` around them gives the gradients, once.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from reblurkit.blur.arguments import computing_type
from reblurkit.errors import ArgumentError, BackendError

_MODULES = {"torch": "plain", "numba": "numba.host", "triton": "triton.host"}
_INSTALL = {"numba": "pip install 'reblurkit[cpu]'", "triton": "pip install triton (Linux, comes with torch)"}


class Backend(Protocol):
    """What the module of a backend offers; ``max_flow=None`` selects the line model.

    Attributes:
        keeps_jacobian: Whether the forward pass keeps the output's derivative by the flows for the backward pass.
        forward: ``(image, flow_next, flow_prev, exposure, max_flow, jacobian) -> (blurred, saved)``: what is saved is
            the derivative, ``(2, B, H, W, C, 2)`` for (next, prev) and (u, v), if the backend keeps it and
            ``jacobian`` asks for it, else empty.
        backward: ``(grad, image, flow_next, flow_prev, saved, exposure, max_flow, need_image, need_flow) ->
            (grad_image, grad_next, grad_prev)``; gradients that are not needed are empty.
    """

    keeps_jacobian: bool
    forward: Callable[[Tensor, Tensor, Tensor, float, int | None, bool], tuple[Tensor, Tensor]]
    backward: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, float, int | None, bool, bool], tuple[Tensor, Tensor, Tensor]
    ]


def blur(
    image: Tensor, flow_next: Tensor, flow_prev: Tensor, exposure: float, max_flow: int | None, backend: str
) -> Tensor:
    """Blur with the chosen backend; differentiable in the image and both flows. Arguments are checked by the caller.

    Args:
        image: ``(B, C, H, W)``.
        flow_next: ``(B, 2, H, W)``.
        flow_prev: ``(B, 2, H, W)``.
        exposure: Factor on both flows.
        max_flow: Range of the table; None for the line model.
        backend: ``"auto"``, ``"torch"``, ``"numba"`` or ``"triton"``.
    """
    if backend not in ("auto", *_MODULES):
        raise ArgumentError(f"`backend` must be one of {['auto', *_MODULES]}, but is {backend!r}")
    if flow_prev is flow_next:
        flow_prev = flow_next.view_as(flow_next)  # torch.compile takes no tensor twice
    jacobian = torch.is_grad_enabled() and (flow_next.requires_grad or flow_prev.requires_grad)
    blurred: Tensor
    blurred, _ = _Blur.apply(image, flow_next, flow_prev, float(exposure), max_flow, backend, jacobian)
    return blurred


def choose(backend: str, device: torch.device) -> str:
    """Name of the backend to use: Triton on CUDA, Numba on the CPU where it is installed, plain torch elsewhere.

    Raises:
        BackendError: If a backend asked for by name is not installed or cannot work on the device.

    Example:
        >>> choose("torch", torch.device("cpu"))
        'torch'
    """
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


def _module(backend: str, device: torch.device) -> Backend:
    return cast(Backend, importlib.import_module(f"reblurkit.blur.backends.{_MODULES[choose(backend, device)]}"))


@torch.library.custom_op("reblurkit::blur", mutates_args=())
def _blur(
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    exposure: float,
    max_flow: int | None,
    backend: str,
    jacobian: bool,
) -> tuple[Tensor, Tensor]:
    module = _module(backend, image.device)
    # The types are chosen already; autocast would compute the sums of the torch backend in half precision.
    with torch.autocast(image.device.type, enabled=False):
        blurred, saved = module.forward(image, flow_next, flow_prev, exposure, max_flow, jacobian)
    return blurred, saved


@_blur.register_fake
def _(
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    exposure: float,
    max_flow: int | None,
    backend: str,
    jacobian: bool,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = image.shape
    keeps = jacobian and _module(backend, image.device).keeps_jacobian
    shape = (2, batch, height, width, channels, 2) if keeps else (0,)
    dtype = computing_type(image, flow_next, flow_prev)
    return image.new_empty(image.shape), image.new_empty(shape, dtype=dtype)


@torch.library.custom_op("reblurkit::blur_backward", mutates_args=())
def _blur_backward(
    grad: Tensor,
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    saved: Tensor,
    exposure: float,
    max_flow: int | None,
    backend: str,
    need_image: bool,
    need_flow: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    module = _module(backend, image.device)
    with torch.autocast(image.device.type, enabled=False):
        if need_flow and not saved.numel() and module.keeps_jacobian:
            # Under torch.func.vmap the forward pass cannot see that a gradient will be wanted.
            _, saved = module.forward(image, flow_next, flow_prev, exposure, max_flow, True)
        d_image, d_next, d_prev = module.backward(
            grad, image, flow_next, flow_prev, saved, exposure, max_flow, need_image, need_flow
        )
    return d_image, d_next, d_prev


@_blur_backward.register_fake
def _(
    grad: Tensor,
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    saved: Tensor,
    exposure: float,
    max_flow: int | None,
    backend: str,
    need_image: bool,
    need_flow: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    d_image = image.new_empty(image.shape if need_image else (0,))
    d_next, d_prev = (flow.new_empty(flow.shape if need_flow else (0,)) for flow in (flow_next, flow_prev))
    return d_image, d_next, d_prev


@_blur.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    folded = [_fold(*pair, info.batch_size) for pair in zip(arguments[:3], in_dims, strict=False)]
    return _unfold(torch.ops.reblurkit.blur(*folded, *arguments[3:]), (0, 1), info.batch_size)


@_blur_backward.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    folded = [_fold(*pair, info.batch_size) for pair in zip(arguments[:4], in_dims, strict=False)]
    saved = _fold(arguments[4], in_dims[4], info.batch_size, batch=1)
    gradients = torch.ops.reblurkit.blur_backward(*folded, saved, *arguments[5:])
    return _unfold(gradients, (0, 0, 0), info.batch_size)


def _fold(tensor: Tensor, dim: int | None, size: int, batch: int = 0) -> Tensor:
    """Make the dimension that ``torch.func.vmap`` hides a part of the batch: every image is blurred on its own."""
    if not tensor.numel():
        return tensor
    tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.movedim(0, batch).flatten(batch, batch + 1)


def _unfold(tensors: tuple[Tensor, ...], batches: tuple[int, ...], size: int) -> tuple[Any, Any]:
    """Undo :func:`_fold`; also the place of the hidden dimension in each tensor, None for an empty one."""
    dims = [batch if tensor.numel() else None for tensor, batch in zip(tensors, batches, strict=True)]
    pairs = zip(tensors, dims, strict=True)
    return tuple(tensor if dim is None else torch.unflatten(tensor, dim, (size, -1)) for tensor, dim in pairs), tuple(
        dims
    )


class _Blur(torch.autograd.Function):
    """The operator and its gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        image: Tensor,
        flow_next: Tensor,
        flow_prev: Tensor,
        exposure: float,
        max_flow: int | None,
        backend: str,
        jacobian: bool,
    ) -> tuple[Tensor, Tensor]:
        blurred, saved = torch.ops.reblurkit.blur(image, flow_next, flow_prev, exposure, max_flow, backend, jacobian)
        return blurred, saved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        image, flow_next, flow_prev, ctx.exposure, ctx.max_flow, ctx.backend, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(image, flow_next, flow_prev, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        need_image, need_next, need_prev = ctx.needs_input_grad[:3]
        d_image, d_next, d_prev = _Gradient.apply(
            grad, *ctx.saved_tensors, ctx.exposure, ctx.max_flow, ctx.backend, need_image, need_next or need_prev
        )
        gradients = (d_image if need_image else None, d_next if need_next else None, d_prev if need_prev else None)
        return *gradients, None, None, None, None


class _Gradient(torch.autograd.Function):
    """The backward operator, which says why it has no gradient of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        d_image, d_next, d_prev = torch.ops.reblurkit.blur_backward(*arguments)
        return d_image, d_next, d_prev

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise BackendError(
            "the blur from flow has no second derivatives; for those use dense_flow_kernel_blur or "
            "dense_flow_line_blur of reblurkit.blur.reference, which are ordinary torch code"
        )
