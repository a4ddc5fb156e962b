"""Whether numbers are free of NaN and infinity, at the price of one norm where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn.utils import get_total_norm


def joint_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all tensors together, without waiting for the device; NaN or infinite if one of them is."""
    return get_total_norm([_numbers(tensor) for tensor in tensors])


def first_not_finite(tensors: Sequence[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity."""
    if joint_norm(tensor for _, tensor in tensors).isfinite():
        return None
    # a square may overflow where no number does, so look closer
    return next((name for name, tensor in tensors if not _numbers(tensor).isfinite().all()), None)


def first_broken_weight(module: nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or infinity, or buffer that holds NaN: masks hold infinity."""
    return first_not_finite(list(module.named_parameters())) or next(
        (name for name, buffer in module.named_buffers() if buffer.isnan().any()), None
    )


def _numbers(tensor: Tensor) -> Tensor:
    return tensor.detach().coalesce().values() if tensor.is_sparse else tensor.detach()
