"""Adaptation to a photo by its own blur: reblur what is sharp as the photo is blurred, and learn to undo it."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.blur.photo_blur import PhotoBlur
from reblurkit.core.calls import finest_scale, preserved_rng
from reblurkit.core.checks import check_images, check_range
from reblurkit.core.numbers import check_positive, check_whole, is_number, shown
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models.full_size import FullSize

_KERNEL = 31
_CROPS, _SIDE, _SMALLEST = 4, 128, 32  # crops a step, their side, and the least that it may be
_LEAST_SIDE = 80  # half of it has room for the smallest crop and its border
_NOISE = 0.02  # at most: what is more is texture


class AdaptedToBlur(NamedTuple):
    """Adapted images: ``image`` and ``plain`` ``(B, 3, H, W)``, ``losses`` ``(B, 2)``, ``agreement`` and ``adapted``.

    ``plain`` is what the network gives without adaptation. ``losses`` holds the mean distance of the photo from the
    deblurred image reblurred with the photo's own kernel, before and after. ``agreement`` ``(B,)`` is that of
    :class:`reblurkit.blur.PhotoBlur`; where it is too small, ``adapted`` ``(B,)`` is False and the image the plain one.
    """

    image: Tensor
    plain: Tensor
    losses: Tensor
    agreement: Tensor
    adapted: Tensor


def adapt_to_blur(
    network: nn.Module,
    blurry: Tensor,
    *,
    steps: int = 20,
    lr: float = 1e-4,
    kernel_size: int | None = None,
    least_agreement: float = 0.8,
    tile: int | None = None,
    seed: int = 0,
) -> AdaptedToBlur:
    """Deblur each photo by weights adapted to its own blur, without ground truth and without a reblurring network.

    Not from a paper. For each photo: deblur it; estimate its blur kernels from edges predicted in the result
    (:class:`reblurkit.blur.PhotoBlur`); shrink the result to half its size, which makes what blur is left half as wide;
    reblur crops of it with these kernels, add the photo's noise, and take ``steps`` Adam steps of L1 on undoing that,
    the learning rate falling to 0. The network learns one blur where it knew a thousand.

    It needs a blur that is nearly the same all over the photo, camera shake for instance, and edges. Where the four
    quarters of the photo do not agree on the kernel, the plain image is kept.

    The network is not changed; a copy in evaluation mode adapts. The random state stays as it was.

    Args:
        network: The trained deblurring network; may return a list, coarse to fine, of which the last counts.
        blurry: Photos ``(B, 3, H, W)``, sRGB in [0, 1], of any size from 80 pixels a side; of 248 and more for
            kernels of 31.
        steps: Steps of adaptation. Each costs as much as training on four crops of 128 pixels, whatever the size of
            the photo.
        lr: Learning rate of the first step.
        kernel_size: Side of the kernels in pixels, odd, at least 3: an upper bound of the blur. None: 31, or of small
            photos an eighth of the shorter side.
        least_agreement: Least agreement of the photo's quarters on its blur, in [0, 1].
        tile: Deblur whole photos in tiles of this side, see :class:`reblurkit.models.FullSize`.
        seed: Of crops and noise.

    Returns:
        The adapted images, the plain ones, reblurring distances, and the agreement.

    Raises:
        ArgumentError: If an argument or an image is out of range.
        ShapeError: If ``blurry`` is no batch of RGB images, or too small.

    Example:
        >>> from reblurkit.models import UNet
        >>> network = UNet(blocks=1, widths=(8, 8, 8))
        >>> adapt_to_blur(network, torch.rand(1, 3, 128, 128), steps=1, kernel_size=9).agreement.shape
        torch.Size([1])
    """
    check_images(blurry=blurry)
    check_range(blurry=blurry)
    check_whole(steps=steps)
    check_positive(lr=lr)
    if not is_number(least_agreement) or not 0 <= least_agreement <= 1:
        raise ArgumentError(f"`least_agreement` must be in [0, 1], but is {shown(least_agreement)}")
    shortest = min(blurry.shape[-2:])
    if kernel_size is None:
        kernel_size = min(_KERNEL, shortest // 8 - (shortest // 8 + 1) % 2)
    if blurry.shape[1] != 3 or shortest < max(8 * kernel_size, _LEAST_SIDE):
        raise ShapeError(
            f"adaptation to a blur of {kernel_size} pixels needs RGB photos of at least "
            f"{max(8 * kernel_size, _LEAST_SIDE)} pixels a side, but came {tuple(blurry.shape)}"
        )
    options = (steps, lr, kernel_size, least_agreement, tile, seed)
    with torch.inference_mode(False), preserved_rng(blurry.device):
        # Tensors made in inference mode can take no part in a backward pass; their copies made here can.
        rows = [_adapt(network, blurry[[index]].detach(), *options) for index in range(len(blurry))]
    return AdaptedToBlur(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _adapt(
    network: nn.Module,
    blurry: Tensor,
    steps: int,
    lr: float,
    kernel_size: int,
    least_agreement: float,
    tile: int | None,
    seed: int,
) -> AdaptedToBlur:
    """Adapt to one photo ``(1, 3, H, W)``."""
    network = copy.deepcopy(network).eval().requires_grad_(True)
    whole, on_crops = FullSize(network, tile=tile), FullSize(network)
    plain = _deblurred(whole, blurry)
    blur = PhotoBlur.of(blurry, plain, kernel_size)
    before = _reblurred_distance(blur, plain, blurry)
    agreement = torch.full((1,), blur.agreement)
    if blur.agreement < least_agreement:
        return AdaptedToBlur(plain, plain, torch.stack([before, before], 1), agreement, torch.tensor([False]))
    generator = torch.Generator().manual_seed(seed)
    sharp = F.interpolate(plain, scale_factor=0.5, mode="area")
    noise = min(_noise_level(blurry), _NOISE)
    optimizer = torch.optim.Adam(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        crops = _crops(sharp, blur.border, generator)
        reblurred = blur.blur(crops, blur.draw(len(crops), generator))
        grain = torch.randn(reblurred.shape, generator=generator).to(reblurred)
        reblurred = _inner((reblurred + noise * grain).clamp(0, 1), blur.border)
        with torch.enable_grad():
            loss = F.l1_loss(finest_scale(on_crops(reblurred)), _inner(crops, blur.border))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    adapted = _deblurred(whole, blurry)
    if not adapted.isfinite().all():
        adapted = plain  # of a learning rate that is too large
    losses = torch.stack([before, _reblurred_distance(blur, adapted, blurry)], 1)
    return AdaptedToBlur(adapted, plain, losses, agreement, torch.tensor([True]))


def _deblurred(network: FullSize, blurry: Tensor) -> Tensor:
    with torch.no_grad():
        deblurred: Tensor = finest_scale(network(blurry))
    return deblurred.clamp(0, 1)


def _reblurred_distance(blur: PhotoBlur, deblurred: Tensor, blurry: Tensor) -> Tensor:
    """How far the deblurred image, reblurred with the whole photo's kernel, is from the photo, ``(1,)``."""
    distance = (blur.blur(deblurred, blur.kernels[:1]) - blurry).abs()
    return _inner(distance, blur.border).mean((1, 2, 3))


def _noise_level(image: Tensor) -> float:
    """Standard deviation of a channel's noise, from the median of diagonal second differences (Donoho)."""
    grey = image.mean(1)
    corners = [grey[..., down::2, right::2] for down in (0, 1) for right in (0, 1)]
    height, width = corners[-1].shape[-2:]
    one, two, three, four = (corner[..., :height, :width] for corner in corners)
    return float((one - two - three + four).abs().median()) / 2 / 0.6745 * 3**0.5


def _crops(image: Tensor, border: int, generator: torch.Generator) -> Tensor:
    """Random crops, turned and mirrored, with a border for what blurs into them."""
    side = min(_SIDE, (min(image.shape[-2:]) - 2 * border) // _SMALLEST * _SMALLEST) + 2 * border
    return torch.cat([_crop(image, side, generator) for _ in range(_CROPS)])


def _crop(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    def whole(bound: int) -> int:
        return int(torch.randint(bound, (), generator=generator))

    top, left = (whole(length - side + 1) for length in image.shape[-2:])
    crop = image[..., top : top + side, left : left + side].rot90(whole(4), (-2, -1))
    return crop.flip(-1) if whole(2) else crop


def _inner(image: Tensor, border: int) -> Tensor:
    return image[..., border:-border, border:-border]
