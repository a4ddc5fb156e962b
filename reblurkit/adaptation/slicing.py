"""A network's inputs one image or one tile at a time, and its outputs together again, whatever their structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reblurkit.errors import ArgumentError, ShapeError


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    """Apply a function to every tensor in nested lists, tuples and dicts; everything else stays."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, dict):
        return {key: map_tensors(function, value) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        mapped = [map_tensors(function, value) for value in inputs]
        return mapped if isinstance(inputs, list) else tuple(mapped)
    return inputs


def first_image(inputs: Any) -> Tensor:
    """The first batch of images among a network's inputs, which tells batch size and image size.

    Raises:
        ShapeError: If there is none, or it is empty.
    """
    for tensor in _tensors(inputs):
        if tensor.ndim >= 4 and len(tensor):
            return tensor
    raise ShapeError(
        "expected a network whose inputs hold a batch of images (B, C, H, W), at least one, but it was called with "
        f"{', '.join(str(tuple(tensor.shape)) for tensor in _tensors(inputs)) or 'no tensor'}"
    )


def each_image(inputs: Any) -> Iterator[Any]:
    """The inputs of every image of a batch, as batches of one; tensors without the batch's dimension are whole."""
    size = len(first_image(inputs))
    for index in range(size):

        def take(tensor: Tensor, index: int = index) -> Tensor:
            return tensor[index : index + 1] if tensor.ndim and len(tensor) == size else tensor

        yield map_tensors(take, inputs)


def each_tile(inputs: Any, side: int) -> list[Any]:
    """Tiles of one size that cover the image; where it does not divide evenly, the last ones overlap their neighbours.

    Tensors of the image's height and width are cut, others are whole.
    """
    size = first_image(inputs).shape[-2:]
    boxes = [
        (..., slice(top, top + side), slice(left, left + side))
        for top in _starts(size[0], side)
        for left in _starts(size[1], side)
    ]

    def cut(box: Any) -> Callable[[Tensor], Tensor]:
        return lambda tensor: tensor[box] if tensor.shape[-2:] == size else tensor

    return [map_tensors(cut(box), inputs) for box in boxes]


def join(outputs: Sequence[Any]) -> Any:
    """The outputs of single images, each an image or a list of scales, as the output of their batch.

    Raises:
        ArgumentError: If a list holds anything but tensors.
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs))
    if not all(isinstance(scale, Tensor) for output in outputs for scale in output):
        raise ArgumentError("a network's list of scales must hold tensors only, but holds other things too")
    scales = [torch.cat(scale) for scale in zip(*outputs, strict=True)]
    return _as(first, scales)


def replace_finest(output: Any, image: Tensor) -> Any:
    """The output with another full-size image."""
    if isinstance(output, Tensor):
        return image
    return _as(output, [*output[:-1], image])


def _as(output: Sequence[Any], scales: list[Any]) -> Sequence[Any]:
    """Scales in a list, a tuple or a named one, as another output holds its own."""
    if isinstance(output, list):
        return scales
    return type(output)(*scales) if hasattr(output, "_fields") else tuple(scales)


def _tensors(inputs: Any) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _tensors(value)
    elif isinstance(inputs, list | tuple):
        for value in inputs:
            yield from _tensors(value)


def _starts(size: int, side: int) -> list[int]:
    last = max(size - side, 0)
    return [*range(0, last, side), last]
