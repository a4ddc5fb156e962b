"""The blur as an operator of torch, for all that does more with it than run it.

Forward and backward pass are registered, so that ``torch.compile`` and ``torch.export`` keep each as one node and
``torch.func.vmap`` has its rule; a ``torch.autograd.Function`` around them gives the gradients, once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reblurkit.blur.arguments import computing_type
from reblurkit.blur.backends.choice import Flows, module_of
from reblurkit.blur.backends.layout import LANES, groups_of
from reblurkit.errors import BackendError

NO_SECOND_DERIVATIVES = (
    "the blur from flow has no second derivatives; for those use dense_flow_kernel_blur or dense_flow_line_blur of "
    "reblurkit.blur.reference, which are ordinary torch code"
)


def blur_by_operator(
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    exposure: float,
    max_flow: int | None,
    backend: str,
    jacobian: bool,
) -> Tensor:
    """Blur as :func:`reblurkit.blur.backends.blur`; ``jacobian``: the gradient of a flow will be asked for."""
    if flow_prev is flow_next:
        flow_prev = flow_next.view_as(flow_next)  # torch.compile takes no tensor twice
    blurred: Tensor
    blurred, _ = _Blur.apply(image, flow_next, flow_prev, float(exposure), max_flow, backend, jacobian)
    return blurred


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
    flows = Flows(flow_next, flow_prev, exposure, max_flow)
    return module_of(backend, image.device).forward(image, flows, jacobian)


@_blur.register_fake
def _(image: Tensor, flow_next: Tensor, flow_prev: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    _, _, backend, jacobian = options
    batch, channels, height, width = image.shape
    shape: tuple[int, ...] = (0,)
    if jacobian:
        keeps = module_of(backend, image.device).keeps_jacobian
        shape = (
            (2, batch, height, width, channels, 2) if keeps else (1, batch, height, width, groups_of(channels) * LANES)
        )
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
    module, flows = module_of(backend, image.device), Flows(flow_next, flow_prev, exposure, max_flow)
    if need_flow and not saved.numel():
        # Under torch.func.vmap the forward pass cannot see that a gradient will be wanted.
        _, saved = module.forward(image, flows, True)
    gradients = module.backward(grad, image, flows, saved, need_image, need_flow)
    # An operator returns as many tensors every time.
    d_image, d_next, d_prev = (
        of.new_empty(0) if one is None else one
        for one, of in zip(gradients, (image, flow_next, flow_prev), strict=True)
    )
    return d_image, d_next, d_prev


@_blur_backward.register_fake
def _(grad: Tensor, image: Tensor, flow_next: Tensor, flow_prev: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, need_image, need_flow = others
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
    def forward(
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
        # Spelled out: with a starred argument torch.compile of torch 2.11 passes the context, too.
        d_image, d_next, d_prev = torch.ops.reblurkit.blur_backward(
            grad, image, flow_next, flow_prev, saved, exposure, max_flow, backend, need_image, need_flow
        )
        return d_image, d_next, d_prev

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise BackendError(NO_SECOND_DERIVATIVES)
