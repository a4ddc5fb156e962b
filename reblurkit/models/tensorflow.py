"""Weights of TensorFlow programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor


def from_tensorflow(variables: Mapping[str, Tensor], names: Callable[[str], str]) -> dict[str, Tensor]:
    """A state dict from the convolutions of a TensorFlow checkpoint.

    A kernel of ``conv2d`` is (height, width, in, out) there and (out, in, height, width) here; a kernel of
    ``conv2d_transpose`` is (height, width, out, in) there and (in, out, height, width) here. So one permutation serves
    both. Nothing is flipped: both libraries correlate, and both define the transposed convolution as the gradient of
    that. What remains different is the padding: ``SAME`` with a stride may pad less before than after.

    Args:
        variables: Every variable by its name, such as ``g_net/enc1_2/conv1/weights``.
        names: The tensor's name here of a variable; other names it returns as they are.

    Returns:
        The tensors that have a name here. The optimizer's variables have none; a dict in which nothing has one is no
        TensorFlow checkpoint and comes back as it is.

    Example:
        >>> import torch
        >>> variables = {"conv/weights": torch.zeros(5, 5, 6, 32), "conv/weights/Adam": torch.zeros(5, 5, 6, 32)}
        >>> state = from_tensorflow(variables, lambda name: {"conv/weights": "conv.weight"}.get(name, name))
        >>> {name: tuple(weight.shape) for name, weight in state.items()}
        {'conv.weight': (32, 6, 5, 5)}
    """
    state = {
        names(variable): value.permute(3, 2, 0, 1) if value.ndim == 4 else value
        for variable, value in variables.items()
        if names(variable) != variable
    }
    return state or dict(variables)
