"""Crops and augmentations of pairs."""

from __future__ import annotations

import torch
from kornia.enhance import adjust_saturation
from torch import Tensor

from reblurkit.errors import ShapeError

Place = tuple[slice, slice]
"""Rows and columns of a crop."""

WHOLE: Place = (slice(None), slice(None))


def random_place(size: tuple[int, int], side: int, generator: torch.Generator) -> Place:
    """The place of a random square in an image.

    Args:
        size: Height and width of the image.
        side: Side of the square.
        generator: Source of the place.

    Raises:
        ShapeError: If the image is smaller than the square.
    """
    height, width = size
    if height < side or width < side:
        raise ShapeError(f"an image of {height} x {width} pixels is smaller than the crop of {side} x {side}")
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    return slice(top, top + side), slice(left, left + side)


def random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The same random square of every image.

    Args:
        images: ``(..., H, W)``.
        size: Side of the crop.
        generator: Source of the place.

    Returns:
        ``(..., size, size)``.

    Raises:
        ShapeError: If the images are smaller than the crop.
    """
    rows, columns = random_place((images.shape[-2], images.shape[-1]), size, generator)
    return images[..., rows, columns]


def flip_and_turn(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flips and quarter turns, the same for all images.

    Args:
        images: Square images ``(..., H, H)``.
        generator: Source of every choice.
    """
    left_right, up_down, diagonal = (torch.rand(3, generator=generator) < 0.5).tolist()
    if left_right:
        images = images.flip(-1)
    if up_down:
        images = images.flip(-2)
    # The flips and the transposition generate all eight symmetries of the square.
    return images.transpose(-1, -2) if diagonal else images


def augment_pair(pair: Tensor, generator: torch.Generator) -> Tensor:
    """The augmentations of the authors' training library, the same for both images but the noise.

    Flips, quarter turns, a permutation of the colour channels, saturation times U(0.5, 1.5), and Gaussian noise on
    the blurry image with a standard deviation of ``|N(0, 2)|`` grey levels of 255. Values are clamped to [0, 1].

    Args:
        pair: Blurry and sharp image, ``(2, 3, H, H)`` in [0, 1].
        generator: Source of every choice.

    Returns:
        The augmented pair, the same shape.
    """
    pair = flip_and_turn(pair, generator)
    pair = pair[:, torch.randperm(3, generator=generator)]
    pair = adjust_saturation(pair, 0.5 + torch.rand((), generator=generator))
    deviation = 2 / 255 * torch.randn((), generator=generator)
    noise = deviation * torch.randn(pair.shape[1:], generator=generator)
    return torch.stack([(pair[0] + noise).clamp(0, 1), pair[1]])
