"""Make a deblurred image agree with its photo: reblurred with the photo's own kernel, it must be the photo."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import torch
from kornia.filters import filter2d
from torch import Tensor
from torch.nn import functional as F

from reblurkit.blur.arguments import computing_type
from reblurkit.blur.kernel_estimate import check_kernel_size, estimate_blur_kernel
from reblurkit.blur.light import from_light, to_light
from reblurkit.blur.spectra import fading, transfer_function
from reblurkit.core.checks import check_finite, check_images, check_range, named_as
from reblurkit.errors import ShapeError

_TIMES = 8  # a photo's shorter side, at least, in kernels
_SMALLEST = 256  # pixels a side; in less the kernel fits what it should not, and the test does not tell
_REGION, _OVERLAP = 768, 192  # pixels
_NOISE = 0.03  # power of the photo's noise, in units of that of the deblurred image's errors
_BORDER = 16  # pixels over which what is missing fades out at the border
_MOST_UNEXPLAINED = 0.105  # of a kernel that is spread thinly
_LESS_OF_DOTS = 0.4  # times the sum of its squares
_MOST_ADDED = 3.0  # of what the network changed


class Consistent(NamedTuple):
    """Images that agree with their photos, and of each region, in rows and columns, what was found.

    ``image`` is ``(B, 3, H, W)`` in [0, 1]. The others begin with ``(B, rows, columns)``: the blur ``kernels`` of sum 1
    ``(..., size, size)``, NaN where there are no edges; ``unexplained``, the residue of the photo as a share of what
    deblurring changed, both as root mean squares, NaN without a kernel or a change; and whether the region was
    ``accepted``. Where it was not, the image is the deblurred one as it came.
    """

    image: Tensor
    kernels: Tensor
    unexplained: Tensor
    accepted: Tensor


def make_consistent(blurry: Tensor, deblurred: Tensor, *, kernel_size: int = 31) -> Consistent:
    """Correct deblurred images so that, reblurred with the photo's own kernel, they are the photo.

    A network says what a photo may look like when sharp, and leaves some blur. The photo B says what its sharp image L
    must look like when blurred. With the kernel k, estimated from both
    (:func:`reblurkit.blur.estimate_blur_kernel`), the correction d of the network's image N is that of least squares,
    in linear light, a Wiener filter on what the network's image leaves unexplained::

        L = N + d,    d minimises |k * (N + d) - B|^2 + 0.03 |d|^2

    Then the kernel is estimated again from L, and d once more. Data consistency of this kind is common in inverse
    problems with a known kernel; estimating it from the network's own image, and the test below, are ours.

    It needs a blur that is the same all over a region, camera shake for instance. **The test**: what remains of the
    photo, ``k * L - B``, in means of 2 x 2 pixels, must be little beside what deblurring changed, ``L - B``. Where the
    kernel is wrong, or blur differs from place to place, more remains; a kernel that is little more than a dot must
    explain more. And the correction must be at most three times what the network changed, both as root mean squares:
    some wrong kernels explain a photo with an image that is far from the network's. A region that fails stays as it
    came. Regions are up to 768 pixels a side, overlap, and are blended; a smaller image is one region.

    The test and the constants were chosen on Kodak photos and twenty training photos, the limit of three on 61 more,
    with the network in the box.

    Args:
        blurry: Photos, ``(B, 3, H, W)``, sRGB in [0, 1], at least 256 pixels a side.
        deblurred: What a network made of them, the same shape.
        kernel_size: Side of the kernels in pixels, odd, from 3 to 127, at most an eighth of the photo's shorter side:
            an upper bound of the blur.

    Returns:
        The images, and what was found; without gradients, computed at least in single precision.

    Raises:
        ArgumentError: If ``kernel_size`` is not odd and of its range, or the images are no finite floating point values
            near [0, 1].
        ShapeError: If the images differ in shape, have not three channels, are too small, or there is none.

    Example:
        >>> blurry = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
        >>> make_consistent(blurry, blurry, kernel_size=9).accepted
        tensor([[[False]]])
    """
    check_images(blurry=blurry, deblurred=deblurred)
    check_range(blurry=blurry, deblurred=deblurred)
    check_finite(blurry=blurry, deblurred=deblurred)
    with named_as(size="kernel_size"):
        check_kernel_size(kernel_size)
    least = max(_TIMES * kernel_size, _SMALLEST)
    if blurry.shape[1] != 3 or min(blurry.shape[-2:]) < least or not len(blurry):
        raise ShapeError(
            f"consistency with kernels of {kernel_size} pixels needs RGB photos (B, 3, H, W), one or more, of at least "
            f"{least} pixels a side, but came {tuple(blurry.shape)}{_smaller(kernel_size, blurry.shape)}"
        )
    computing = computing_type(blurry, deblurred)
    with torch.no_grad(), torch.autocast(blurry.device.type, enabled=False):  # half precision would not do
        pairs = zip(blurry.to(computing).clamp(0, 1), deblurred.to(computing).clamp(0, 1), strict=True)
        images, *found = zip(
            *(_consistent(photo[None], image[None], kernel_size) for photo, image in pairs), strict=True
        )
    kernels, unexplained, accepted = (torch.stack(one) for one in found)
    return Consistent(torch.cat(images).to(deblurred.dtype), kernels, unexplained, accepted)


def _smaller(kernel_size: int, size: tuple[int, ...]) -> str:
    """Advice for photos that are large enough for smaller kernels alone."""
    shortest = min(size[-2:])
    largest = (shortest // _TIMES - 1) | 1
    are_photos = size[0] > 0 and size[1] == 3 and shortest >= _SMALLEST
    return f"; these take kernels of up to {largest}" if are_photos and shortest < _TIMES * kernel_size else ""


def may_be_consistent(photos: Tensor) -> bool:
    """Whether there are photos, large enough for :func:`make_consistent`."""
    return len(photos) > 0 and min(photos.shape[-2:]) >= _SMALLEST


def _consistent(blurry: Tensor, deblurred: Tensor, size: int) -> tuple[Tensor, ...]:
    """One photo ``(1, 3, H, W)``: its image, and kernels, residues and verdicts of its regions."""
    rows, columns = (_spans(length, max(_REGION, _TIMES * size)) for length in blurry.shape[-2:])
    sums, weights, found = torch.zeros_like(blurry), torch.zeros_like(blurry[:1, :1]), []
    for row, column in product(rows, columns):
        region = (..., row, column)
        image, *more = _corrected(blurry[region], deblurred[region], size)
        down, right = (_weight(*one).to(image) for one in zip((row, column), blurry.shape[-2:], strict=True))
        weight = down[:, None] * right
        sums[region] += weight * image
        weights[region] += weight
        found.append(more)
    grid = len(rows), len(columns)
    by_region = [(one := torch.stack(column)).view(*grid, *one.shape[1:]) for column in zip(*found, strict=True)]
    accepted = by_region[-1]
    return (sums / weights if accepted.any() else deblurred), *by_region


def _spans(length: int, side: int) -> list[slice]:
    """Spans of a side, evenly spaced, that overlap and cover a length."""
    if length <= side:
        return [slice(0, length)]
    count = math.ceil((length - _OVERLAP) / (side - _OVERLAP))
    starts = [round(index * (length - side) / (count - 1)) for index in range(count)]
    return [slice(start, start + side) for start in starts]


def _weight(span: slice, length: int) -> Tensor:
    """Weights of a span, which fade where others go on, and not at the image's border."""
    places = torch.arange(span.start, span.stop, dtype=torch.float64)
    since, left = places - span.start + 1, span.stop - places
    within = [one for one, goes_on in ((since, span.start > 0), (left, span.stop < length)) if goes_on]
    return torch.stack([torch.full_like(places, _OVERLAP), *within]).amin(0) / _OVERLAP


def _corrected(blurry: Tensor, deblurred: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A region's image, kernel, unexplained share, and whether it is accepted."""
    photo, proposal = to_light(blurry), to_light(deblurred)
    image = deblurred
    for _ in range(2):
        (kernel,) = estimate_blur_kernel(blurry, image, size).to(image)
        if kernel.isnan().any():
            return deblurred, kernel, kernel.new_tensor(torch.nan), torch.tensor(False, device=image.device)
        light = (proposal + _correction(photo, proposal, kernel)).clamp(0, 1)
        image = from_light(light)
    border = size // 2 + 2
    left, changed, added, removed = (
        _inner(one, border)
        for one in (photo - _reblurred(light, kernel), light - photo, light - proposal, proposal - photo)
    )
    # Means of 2 x 2 pixels: noise is halved, what the blur could not have done is not.
    unexplained = F.avg_pool2d(left, 2).square().mean().sqrt() / changed.square().mean().sqrt()
    accepted = unexplained + _LESS_OF_DOTS * kernel.square().sum() <= _MOST_UNEXPLAINED
    accepted &= added.square().mean() <= _MOST_ADDED**2 * removed.square().mean()
    return (image if accepted else deblurred), kernel, unexplained, accepted


def _correction(photo: Tensor, proposal: Tensor, kernel: Tensor) -> Tensor:
    """What must be added to the proposal, in light, for it to be the photo when blurred."""
    missing = photo - _reblurred(proposal, kernel)
    border = len(kernel)
    missing = F.pad(missing * fading(missing, _BORDER), (border,) * 4)
    shape = missing.shape[-2:]
    blur = transfer_function(kernel.flip(0, 1), shape)  # the kernel is that of a correlation
    spectrum = blur.conj() * torch.fft.rfft2(missing) / (blur.abs().square() + _NOISE)
    return _inner(torch.fft.irfft2(spectrum, s=shape), border)


def _reblurred(light: Tensor, kernel: Tensor) -> Tensor:
    blurred: Tensor = filter2d(light, kernel[None], border_type="replicate")
    return blurred


def _inner(image: Tensor, border: int) -> Tensor:
    return image[..., border:-border, border:-border]
