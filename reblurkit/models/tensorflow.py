"""Weights of TensorFlow programs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_PARAMETERS = {"weights": "weight", "biases": "bias"}


def from_tensorflow(
    variables: Mapping[str, Tensor], scope: str, names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """PyTorch's names and layouts for the convolutions of a TensorFlow 1 (slim) checkpoint.

    A kernel of ``conv2d`` is (height, width, in, out) there and (out, in, height, width) here; a kernel of
    ``conv2d_transpose`` is (height, width, out, in) there and (in, out, height, width) here. So one permutation serves
    both. Nothing is flipped: both libraries correlate, and both define the transposed convolution as the gradient of
    that. What remains different is the padding: ``SAME`` with a stride pads less before than after.

    Args:
        variables: Every variable by its name, such as ``g_net/enc1_2/conv1/weights``; the optimizer's and those of
            other scopes are left out.
        scope: Name of the network, the first part of its variables' names: ``g_net``.
        names: Module paths for those layers that are called differently here, by their TensorFlow name without the
            scope; the others keep theirs, with dots: ``enc1_2/conv1`` is ``enc1_2.conv1``.

    Returns:
        A state dict.

    Example:
        >>> import torch
        >>> state = from_tensorflow({"g_net/enc1_1/weights": torch.zeros(5, 5, 6, 32)}, "g_net")
        >>> {name: tuple(weight.shape) for name, weight in state.items()}
        {'enc1_1.weight': (32, 6, 5, 5)}
    """
    state = {}
    for variable, value in variables.items():
        layer, _, parameter = variable.removeprefix(f"{scope}/").rpartition("/")
        if variable.startswith(f"{scope}/") and parameter in _PARAMETERS:
            module = (names or {}).get(layer, layer.replace("/", "."))
            state[f"{module}.{_PARAMETERS[parameter]}"] = value.permute(3, 2, 0, 1) if value.ndim == 4 else value
    return state
