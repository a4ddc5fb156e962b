"""One operation for the table and the line model, and the backends that compute it.

A backend is a module of the form of :class:`reblurkit.blur.backends.choice.Backend`.

Two roads lead to a backend. Plain tensors take the short one, an ``autograd.Function`` around the two functions, as a
call of a small image costs as long as what the host does around it. Everything that must see the blur as one node, or
give it a rule, takes the operator of :mod:`reblurkit.blur.backends.operator`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reblurkit.blur.backends.choice import Backend, Flows, Gradients, choose, module_of
from reblurkit.blur.backends.operator import NO_SECOND_DERIVATIVES, blur_by_operator
from reblurkit.errors import BackendError

__all__ = ["blur", "choose"]

_PLAIN = frozenset({Tensor, nn.Parameter})  # every other kind has a say in what operators do


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
    jacobian = torch.is_grad_enabled() and (flow_next.requires_grad or flow_prev.requires_grad)
    if _observed(image, flow_next, flow_prev):
        return blur_by_operator(image, flow_next, flow_prev, exposure, max_flow, backend, jacobian)
    flows = Flows(flow_next, flow_prev, float(exposure), max_flow)
    blurred: Tensor = _Blur.apply(image, flow_next, flow_prev, flows, module_of(backend, image.device), jacobian)
    return blurred


def _observed(image: Tensor, flow_next: Tensor, flow_prev: Tensor) -> bool:
    """Whether somebody watches operators go by, or replaces them: a compiler, a transform, a mode, a kind of tensor."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
        or image.is_meta
        or not _PLAIN.issuperset(map(type, (image, flow_next, flow_prev)))
    )


class _Blur(torch.autograd.Function):
    """The short road. Static methods with a context: torch applies these fastest.

    The flows come twice: as arguments of their own, which torch follows, and together, as the backend takes them.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, flow_next: Tensor, flow_prev: Tensor, flows: Flows, module: Backend, jacobian: bool
    ) -> Tensor:
        blurred, saved = module.forward(image, flows, jacobian)
        ctx.save_for_backward(image, saved, flow_next, flow_prev)
        ctx.module, ctx.options = module, flows[2:]
        return blurred

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_image, need_next, need_prev = ctx.needs_input_grad[:3]
        image, saved, flow_next, flow_prev = ctx.saved_tensors
        flows = Flows(flow_next, flow_prev, *ctx.options)
        arguments = (grad, image, flows, saved, need_image, need_next or need_prev)
        gradients: Gradients
        if torch.is_grad_enabled():  # only what may be differentiated again needs a function of its own
            gradients = _Gradients.apply(ctx.module, flow_next, flow_prev, *arguments)
        else:
            gradients = ctx.module.backward(*arguments)
        d_image, d_next, d_prev = gradients
        return d_image, d_next if need_next else None, d_prev if need_prev else None, None, None, None


class _Gradients(torch.autograd.Function):
    """The backward pass, which says why it has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, module: Backend, _next: Tensor, _prev: Tensor, *arguments: Any) -> Gradients:
        return module.backward(*arguments)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise BackendError(NO_SECOND_DERIVATIVES)
