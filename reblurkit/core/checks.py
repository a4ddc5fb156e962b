"""Checks of arguments, made once, at the public edge."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from reblurkit.errors import ArgumentError, ReblurkitError, ShapeError

FULL_SIZE = "wrap the network as reblurkit.models.FullSize(network), which pads and crops"


@contextmanager
def named_as(**names: str) -> Iterator[None]:
    """Errors that leave this block name arguments, in backticks, as they are called where the user has given them.

    Args:
        **names: The user's name by the name in the block.

    Example:
        >>> with named_as(weight="reblur_weight"):
        ...     raise ArgumentError("`weight` must be at least 0, but is -1")
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `reblur_weight` must be at least 0, but is -1
    """
    try:
        yield
    except ReblurkitError as error:
        message = re.sub(r"`(\w+)`", lambda match: f"`{names.get(match[1], match[1])}`", str(error))
        raise type(error)(message) from error


def check_images(**images: Tensor) -> None:
    """Check that every argument is a batch of images and that all have one shape, dtype kind and device.

    Args:
        **images: Tensors by the name that the message shall use, each ``(B, C, H, W)``, floating point.

    Raises:
        ShapeError: If a tensor has not four dimensions, or shapes differ.
        ArgumentError: If one is no tensor or not floating point, or devices differ.

    Example:
        >>> import torch
        >>> check_images(blurry=torch.zeros(1, 3, 4, 4), sharp=torch.zeros(3, 4, 4))
        Traceback (most recent call last):
        reblurkit.errors.ShapeError: `sharp` must be a batch of images (B, C, H, W), but its shape is (3, 4, 4)
    """
    first_name, first = next(iter(images.items()))
    for name, image in images.items():
        if not isinstance(image, Tensor):
            raise ArgumentError(f"`{name}` must be a tensor (B, C, H, W), but is a {type(image).__name__}")
        if image.ndim != 4:
            raise ShapeError(f"`{name}` must be a batch of images (B, C, H, W), but its shape is {tuple(image.shape)}")
        if not image.is_floating_point():
            raise ArgumentError(
                f"`{name}` must hold floating point values in [0, 1], but is {image.dtype}; divide 8-bit images by 255"
            )
        if image.shape != first.shape:
            raise ShapeError(
                f"`{first_name}` and `{name}` must have the same shape, but are {tuple(first.shape)} and "
                f"{tuple(image.shape)}"
            )
        if image.device != first.device:
            raise ArgumentError(
                f"`{first_name}` and `{name}` must be on one device, but are on {first.device} and {image.device}"
            )


def check_range(**images: Tensor) -> None:
    """Check that images lie in [0, 1], with a little room for noise and ringing.

    Reads the values, so it waits for a GPU: call it at the data's edge or on a first batch, never per step.

    Raises:
        ArgumentError: If a value lies outside [-0.5, 1.5], which points to 8-bit or [-1, 1] images, or there are no
            values, on the device ``meta``.
    """
    for name, image in images.items():
        if not image.numel():
            continue
        if image.is_meta:
            raise ArgumentError(f"`{name}` must hold values, but is on the device meta, which has none")
        low, high = (float(bound) for bound in image.detach().aminmax())
        if low < -0.5 or high > 1.5:
            raise ArgumentError(
                f"`{name}` must lie in [0, 1], but its values span [{low:.4g}, {high:.4g}]; "
                "divide 8-bit images by 255, map [-1, 1] images by (x + 1) / 2"
            )


def check_finite(**images: Tensor) -> None:
    """Check that images hold neither NaN nor infinity; reads the values, as :func:`check_range`.

    Raises:
        ArgumentError: If one does.

    Example:
        >>> import torch
        >>> check_finite(blurry=torch.tensor([0.5, float("nan")]))
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `blurry` must hold finite values, but 1 of 2 are NaN or infinite
    """
    for name, image in images.items():
        if broken := int((~image.isfinite()).sum()):
            raise ArgumentError(
                f"`{name}` must hold finite values, but {broken} of {image.numel()} are NaN or infinite"
            )


class FirstBatchCheck:
    """Checks the range of the first batch that it is called with, and of no other: reading values waits for a GPU.

    Example:
        >>> import torch
        >>> check = FirstBatchCheck()
        >>> check(blurry=torch.zeros(1, 3, 4, 4))
        >>> check(blurry=torch.full((1, 3, 4, 4), 255.0))
    """

    def __init__(self) -> None:
        self._done = False

    def __call__(self, **images: Tensor) -> None:
        """Check the images, see :func:`check_range`."""
        if not self._done:
            check_range(**images)
            self._done = True


def check_size(image: Tensor, multiple: int, smallest: int = 1, channels: int = 3, advice: str = FULL_SIZE) -> None:
    """Check that a network can take images of this size.

    Args:
        image: The network's input.
        multiple: What height and width must divide by.
        smallest: The least height and width.
        channels: The channels that the network was made for.
        advice: What to do about a wrong height or width, for the message.

    Raises:
        ShapeError: If not.

    Example:
        >>> import torch
        >>> check_size(torch.zeros(1, 3, 720, 1280), multiple=32)
        Traceback (most recent call last):
        reblurkit.errors.ShapeError: height and width must divide by 32, but the image is 720 x 1280; wrap ...
    """
    if image.ndim != 4 or image.shape[1] != channels:
        raise ShapeError(f"expected a batch of images (B, {channels}, H, W), but its shape is {tuple(image.shape)}")
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise ShapeError(f"height and width must divide by {multiple}, but the image is {height} x {width}; {advice}")
    if min(height, width) < smallest:
        raise ShapeError(f"height and width must be at least {smallest}, but the image is {height} x {width}; {advice}")
