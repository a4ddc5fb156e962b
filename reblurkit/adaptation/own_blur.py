"""Adaptation to a photo by its own blur: reblur what is sharp as the photo is blurred, and learn to undo it.

Not from a paper; the kernels are estimated as in Cho and Lee, *Fast Motion Deblurring* (2009).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.adaptation.batch import chosen_parameters
from reblurkit.adaptation.image import SWAPPING, explained
from reblurkit.adaptation.options import check_tile
from reblurkit.blur.arguments import own_generator
from reblurkit.blur.kernel_estimate import check_kernel_size
from reblurkit.blur.photo_blur import PhotoBlur
from reblurkit.core.calls import copied, finest_scale, preserved_rng, stack_length
from reblurkit.core.checks import check_finite, check_images, check_range, named_as
from reblurkit.core.numbers import check_rate, check_whole, is_number, shown
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models.full_size import FullSize

_KERNEL = 31
_CROPS, _SIDE, _SMALLEST = 4, 128, 32  # crops a step, their side, and the least that it may be
_LEAST_SIDE = 80  # half of it has room for the smallest crop and its border
_NOISE = 0.02  # at most: what is more is texture


@dataclass(frozen=True, kw_only=True)
class AdaptToBlurOptions:
    """How to adapt to a photo's own blur: keywords of :func:`adapt_to_blur` and ``AdaptToBlurCallback``.

    Args:
        steps: Steps of adaptation. Each costs as much as training on four crops of 128 pixels, whatever the size of
            the photo.
        lr: Learning rate of the first step.
        kernel_size: Side of the kernels in pixels, odd, from 3 to 127, at most an eighth of the photo's shorter side:
            an upper bound of the blur. None: 31, or of small photos that eighth.
        least_agreement: Least agreement of the photo's quarters on its blur, in [0, 1].
        least_explained: Least share of what the network removed that the photo's kernel must bring back, in [0, 1]. Of
            shaken photos it was 0.28 to 0.79; of kernels that were hardly more than a dot, with which the network would
            learn to do nothing, below 0.1.
        tile: Deblur whole photos in tiles of this side, see :class:`reblurkit.models.FullSize`.
        seed: Of crops and noise; None: the global random state, which stays as it was.

    Raises:
        ArgumentError: If an option is out of range.
    """

    steps: int = 20
    lr: float = 1e-4
    kernel_size: int | None = None
    least_agreement: float = 0.8
    least_explained: float = 0.2
    tile: int | None = None
    seed: int | None = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        check_whole(steps=self.steps)
        check_rate(lr=self.lr)
        check_tile(self.tile)
        for name in ("least_agreement", "least_explained"):
            least = getattr(self, name)
            if not is_number(least) or not 0 <= least <= 1:
                raise ArgumentError(f"`{name}` must be in [0, 1], but is {shown(least)}")
        if self.kernel_size is not None:
            with named_as(size="kernel_size"):
                check_kernel_size(self.kernel_size)
        own_generator(self.seed)

    @property
    def least_side(self) -> int:
        """Pixels that a photo must have along its shorter side."""
        return max(8 * (self.kernel_size or 0), _LEAST_SIDE)

    def kernel_size_for(self, shortest: int) -> int:
        """Side of the kernels for a photo of so many pixels along its shorter side."""
        return self.kernel_size or min(_KERNEL, (max(shortest, _LEAST_SIDE) // 8 - 1) | 1)  # odd


class AdaptedToBlur(NamedTuple):
    """Adapted images: ``image`` and ``plain`` ``(B, 3, H, W)``, and ``losses`` ``(B, 2)``; the others ``(B,)``.

    ``plain`` is what the network gives without adaptation. ``losses`` holds the mean distance of the photo from the
    deblurred image reblurred with the photo's own kernel, before and after. ``agreement`` is that of
    :class:`reblurkit.blur.PhotoBlur`, ``explained`` the share of what the network removed that its kernel brings back,
    in [0, 1]; where one is too small, ``adapted`` is False and the image the plain one. So it is where the adapted
    image became NaN or infinite, and with it the distance after.
    """

    image: Tensor
    plain: Tensor
    losses: Tensor
    agreement: Tensor
    explained: Tensor
    adapted: Tensor


def adapt_to_blur(network: nn.Module, blurry: Tensor, **options: Any) -> AdaptedToBlur:
    """Deblur each photo by weights adapted to its own blur, without ground truth and without a reblurring network.

    Not from a paper. For each photo: deblur it; estimate its blur kernels from edges predicted in the result
    (:class:`reblurkit.blur.PhotoBlur`); shrink the result to half its size, which makes what blur is left half as wide;
    reblur crops of it with these kernels, add the photo's noise, and take ``steps`` Adam steps of L1 on undoing that,
    the learning rate falling to 0. The network learns one blur where it knew a thousand.

    It needs a blur that is nearly the same all over the photo, camera shake for instance, and edges. Where the four
    quarters of the photo do not agree on the kernel, or it brings back less than a fifth of what the network removed,
    the plain image is kept.

    The network is not changed; a copy in evaluation mode adapts, frozen parameters included. The random state stays as
    it was. Computed in the network's precision, at least single, whatever autocast says.

    Args:
        network: The trained deblurring network of single images; may return a list, coarse to fine, of which the last
            counts.
        blurry: Photos ``(B, 3, H, W)``, sRGB in [0, 1], of any size from 80 pixels a side; of 248 and more for
            kernels of 31.
        **options: See :class:`AdaptToBlurOptions`.

    Returns:
        The adapted images, the plain ones, reblurring distances, and the agreement.

    Raises:
        ArgumentError: If an argument or an image is out of range or not finite, or the network cannot adapt: it takes
            several frames, has no parameters, gives no gradients, cannot be copied, or is on another device.
        ShapeError: If ``blurry`` is no batch of RGB images, or too small, or the network does not keep its shape.

    Example:
        >>> from reblurkit.models import UNet
        >>> network = UNet(blocks=1, widths=(8, 8, 8))
        >>> adapt_to_blur(network, torch.rand(1, 3, 128, 128), steps=1, kernel_size=9).agreement.shape
        torch.Size([1])
    """
    check_photos(blurry)
    check_adaptable(network, blurry.device)
    chosen = AdaptToBlurOptions(**options)
    shortest = min(blurry.shape[-2:])
    kernel_size = chosen.kernel_size_for(shortest)
    if shortest < chosen.least_side:
        raise ShapeError(
            f"adaptation to a blur, with kernels of {kernel_size} pixels, needs photos of at least {chosen.least_side} "
            f"pixels a side, but came {blurry.shape[-2]} x {blurry.shape[-1]}"
        )
    device, computing = blurry.device, _computing_type(network)
    # Autocast would keep the weights of the first step, and blur in half precision.
    uses_autocast = torch.is_autocast_enabled(device.type)
    precision = torch.autocast(device.type, enabled=False) if uses_autocast else nullcontext()
    with torch.inference_mode(False), precision, preserved_rng(device):
        # Tensors made in inference mode can take no part in a backward pass; their copies made here can.
        rows = [_adapt(network, blurry[[i]].detach().to(computing), chosen, kernel_size) for i in range(len(blurry))]
        image, plain, *more = (torch.cat(column) for column in zip(*rows, strict=True))
        return AdaptedToBlur(image.to(blurry.dtype), plain.to(blurry.dtype), *more)


def check_photos(blurry: Tensor) -> None:
    """Raise an error for anything but photos to adapt to, of any size."""
    check_images(blurry=blurry)
    check_range(blurry=blurry)
    check_finite(blurry=blurry)
    if blurry.shape[1] != 3 or not len(blurry):
        raise ShapeError(
            f"adaptation to a blur needs RGB photos (B, 3, H, W), one or more, but came {tuple(blurry.shape)}"
        )


def check_adaptable(network: nn.Module, device: torch.device) -> None:
    """Raise ArgumentError for a network that cannot adapt to a photo's blur on a device."""
    if not isinstance(network, nn.Module):
        raise ArgumentError(f"the deblurring network must be an nn.Module, but is {network!r}")
    if (frames := stack_length(network)) > 1:
        raise ArgumentError(
            f"adaptation is for networks of single images, but {type(network).__name__} takes {frames} frames"
        )
    chosen_parameters(network, "all")
    places = {parameter.device for parameter in network.parameters()}
    if device not in places:
        raise ArgumentError(f"the network and the photos must be on one device, but are on {places.pop()} and {device}")


def _computing_type(network: nn.Module) -> torch.dtype:
    """The type of the network's parameters, at least single precision: small steps vanish in half."""
    types = {parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()}
    return torch.float64 if types == {torch.float64} else torch.float32


def _copied(network: nn.Module, photo: Tensor) -> nn.Module:
    """A copy of the network that can adapt to a photo."""
    with SWAPPING:
        network = copied(network).eval()
    if any(tensor.dtype.itemsize < 4 and tensor.is_floating_point() for tensor in network.parameters()):
        network = network.to(photo.dtype)
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return network


def _adapt(network: nn.Module, blurry: Tensor, options: AdaptToBlurOptions, kernel_size: int) -> AdaptedToBlur:
    """Adapt to one photo ``(1, 3, H, W)``."""
    network = _copied(network, blurry)
    whole, on_crops = FullSize(network, tile=options.tile), FullSize(network)
    plain = _deblurred(whole, blurry)
    if not plain.isfinite().all():
        nothing = torch.zeros(1), torch.zeros(1), torch.tensor([False])
        return AdaptedToBlur(plain, plain, blurry.new_full((1, 2), torch.nan), *nothing)
    blur = PhotoBlur.of(blurry, plain, kernel_size)
    before = _reblurred_distance(blur, plain, blurry)
    removed = _inner((plain - blurry).abs(), blur.border).mean((1, 2, 3))
    agreement, explained_share = torch.full((1,), blur.agreement), (1 - before / removed).nan_to_num(0).clamp(0).cpu()
    if blur.agreement < options.least_agreement or explained_share < options.least_explained:
        kept = agreement, explained_share, torch.tensor([False])
        return AdaptedToBlur(plain, plain, torch.stack([before, before], 1), *kept)
    generator = own_generator(options.seed)
    sharp = F.interpolate(plain, scale_factor=0.5, mode="area")
    noise = min(_noise_level(blurry), _NOISE)
    optimizer = torch.optim.Adam([weight for weight in network.parameters() if weight.requires_grad], options.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, options.steps)
    for _ in range(options.steps):
        crops = _crops(sharp, blur.border, generator)
        reblurred = blur.blur(crops, blur.draw(len(crops), generator))
        grain = torch.randn(reblurred.shape, generator=generator, device="cpu").to(reblurred)
        reblurred = _inner((reblurred + noise * grain).clamp(0, 1), blur.border)
        with torch.enable_grad(), explained(on_crops, (reblurred,)):
            loss = F.l1_loss(_called(on_crops, reblurred), _inner(crops, blur.border))
            if not loss.requires_grad:
                raise ArgumentError(
                    f"no parameter takes part in the output of {type(network).__name__}; see that its forward does not "
                    "switch gradients off"
                )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    adapted = _deblurred(whole, blurry)
    losses = torch.stack([before, _reblurred_distance(blur, adapted, blurry)], 1)
    if not adapted.isfinite().all():  # of a learning rate that is too large
        losses[:, 1] = torch.nan
        return AdaptedToBlur(plain, plain, losses, agreement, explained_share, torch.tensor([False]))
    return AdaptedToBlur(adapted, plain, losses, agreement, explained_share, torch.tensor([True]))


def _deblurred(network: FullSize, blurry: Tensor) -> Tensor:
    """The image in [0, 1], or as it is where it holds NaN or infinity."""
    with torch.no_grad(), explained(network, (blurry,)):
        deblurred = _called(network, blurry)
    return deblurred.clamp(0, 1) if deblurred.isfinite().all() else deblurred


def _called(network: FullSize, image: Tensor) -> Tensor:
    """The network's image, of the type of its input."""
    output = finest_scale(network(image.clone()))  # some write into their input
    name = type(network.network).__name__
    if output.shape != image.shape:
        raise ShapeError(f"{name} must make images of shape {tuple(image.shape)}, but made {tuple(output.shape)}")
    if not output.is_floating_point():
        raise ArgumentError(f"{name} must make floating point values in [0, 1], but made {output.dtype}")
    return output.to(image.dtype)


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


def _crops(image: Tensor, border: int, generator: torch.Generator | None) -> Tensor:
    """Random crops, turned and mirrored, with a border for what blurs into them."""
    side = min(_SIDE, (min(image.shape[-2:]) - 2 * border) // _SMALLEST * _SMALLEST) + 2 * border
    return torch.cat([_crop(image, side, generator) for _ in range(_CROPS)])


def _crop(image: Tensor, side: int, generator: torch.Generator | None) -> Tensor:
    def whole(bound: int) -> int:
        return int(torch.randint(bound, (), generator=generator, device="cpu"))

    top, left = (whole(length - side + 1) for length in image.shape[-2:])
    crop = image[..., top : top + side, left : left + side].rot90(whole(4), (-2, -1))
    return crop.flip(-1) if whole(2) else crop


def _inner(image: Tensor, border: int) -> Tensor:
    return image[..., border:-border, border:-border]
