"""The blur kernel of a photo, from the photo and what a deblurring network makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from kornia.filters import bilateral_blur
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from reblurkit.blur.arguments import computing_type
from reblurkit.blur.light import to_light
from reblurkit.blur.spectra import fading, transfer_function
from reblurkit.core.checks import check_finite, check_images, check_range
from reblurkit.core.numbers import is_number, shown
from reblurkit.errors import ArgumentError, ShapeError

_LARGEST = 127  # pixels: of longer blur no network leaves edges

_SHOCKS = (2, 2, 1, 1)  # steps of the shock filter, in each iteration
_EDGES, _MORE_EDGES = 0.1, 0.9  # share of the pixels that are edges at first; divided by the second in every iteration
_RIDGE = 1e-3  # beta of the kernel, in units of the edges' energy
_EXACT, _MOST_STEPS = 1e-8, 2000  # of conjugate gradients: the residue they end at; 60 to 300 steps do
_SMOOTHNESS = 0.1  # alpha of the image
_LEAST = 1 / 20  # of the kernel's largest value
_ISLAND = 0.1  # of the largest connected part's mass
_TAPER = 16  # pixels over which differences fade out at the border


def estimate_blur_kernel(blurry: Tensor, deblurred: Tensor, size: int = 31) -> Tensor:
    """The kernel of a photo's blur, without the sharp photo.

    Cho and Lee, *Fast Motion Deblurring* (SIGGRAPH Asia 2009): predict the sharp image's edges, by a bilateral filter,
    a shock filter and a threshold on differences; find the kernel that makes them into those of the
    blurry photo, the k that minimises (equation 9)::

        sum over d of |k * edges_d - d(B)|^2 + beta |k|^2

    deconvolve the photo with it, with a Gaussian prior on differences; and again. The network's image is
    still blurry, and the kernel between it and the photo says little; its predicted edges are sharp.

    Different from them: a network's image is the start instead of a pyramid of scales; in linear light, where light
    adds up; the kernel's minimum in closed form; parts of it that hang together with nothing are removed by their
    mass, and its centre of mass is moved to its middle, so that deblurring does not move the photo.

    Args:
        blurry: Photos B, ``(B, 3, H, W)``, sRGB in [0, 1]; both sides at least four times ``size``.
        deblurred: What a network made of them, the same shape.
        size: Side of the kernel in pixels, odd, from 3 to 127. Larger than the blur does not harm.

    Returns:
        float64, nonnegative, of sum 1: ``(B, size, size)``, for a correlation as in :class:`ShakeBlur`. NaN where there
        are no edges.

    Raises:
        ArgumentError: If ``size`` is not odd and of its range, or the images are no finite floating point values near
            [0, 1].
        ShapeError: If the images differ in shape, have not three channels, are too small, or there is none.

    Example:
        >>> blurry = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> estimate_blur_kernel(blurry, blurry, size=9).shape
        torch.Size([1, 9, 9])
    """
    check_images(blurry=blurry, deblurred=deblurred)
    check_kernel_size(size)
    if blurry.shape[1] != 3 or min(blurry.shape[-2:]) < 4 * size or not len(blurry):
        raise ShapeError(
            f"a kernel of {size} pixels needs RGB images, one or more, of at least {4 * size} pixels a side, but came "
            f"{tuple(blurry.shape)}; of smaller images ask for a smaller kernel"
        )
    check_range(blurry=blurry, deblurred=deblurred)
    check_finite(blurry=blurry, deblurred=deblurred)
    light, latent = (to_light(image.detach().clamp(0, 1)).double().mean(1) for image in (blurry, deblurred))
    return torch.stack([_estimate(light[[i], None], latent[[i], None], size) for i in range(len(light))])


def check_kernel_size(size: int) -> None:
    """Check the side of a kernel that is to be estimated.

    Raises:
        ArgumentError: If it is no odd number of pixels from 3 to 127.

    Example:
        >>> check_kernel_size(8)
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `size` must be an odd number of pixels from 3 to 127, but is 8
    """
    if not is_number(size, int) or not 3 <= size <= _LARGEST or size % 2 == 0:
        raise ArgumentError(f"`size` must be an odd number of pixels from 3 to {_LARGEST}, but is {shown(size)}")


def kernel_similarity(one: Tensor, other: Tensor) -> Tensor:
    """How alike two kernels are, wherever they lie: the largest value of their normalised correlation.

    1 for the same kernel, also shifted. Hu and Yang, *Good Regions to Deblur* (ECCV 2012).

    Args:
        one: ``(..., H, W)``, floating point.
        other: The same size; dimensions in front are broadcast.

    Returns:
        ``(...)`` in [0, 1] for nonnegative kernels; NaN for kernels that are 0 or hold NaN.

    Raises:
        ArgumentError: If one is no tensor of floating point, or devices differ.
        ShapeError: If the sizes differ, or are 0.

    Example:
        >>> dot = torch.zeros(5, 5)
        >>> dot[1, 2] = 1
        >>> float(kernel_similarity(dot, dot.roll(2, 0)))
        1.0
    """
    for kernel in (one, other):
        if not isinstance(kernel, Tensor) or not kernel.is_floating_point():
            found = kernel.dtype if isinstance(kernel, Tensor) else shown(kernel)
            raise ArgumentError(f"kernels must be tensors (..., H, W) of floating point, but came {found}")
    if one.device != other.device:
        raise ArgumentError(f"kernels must be on one device, but are on {one.device} and {other.device}")
    if not _comparable(one.shape, other.shape):
        raise ShapeError(f"kernels must have the same size, but came {tuple(one.shape)} and {tuple(other.shape)}")
    one, other = (kernel.to(computing_type(one, other)) for kernel in (one, other))
    size = tuple(2 * side for side in one.shape[-2:])
    spectrum = torch.fft.rfft2(one, s=size).conj() * torch.fft.rfft2(other, s=size)
    norms = one.flatten(-2).norm(dim=-1) * other.flatten(-2).norm(dim=-1)
    similarity: Tensor = torch.fft.irfft2(spectrum, s=size).amax((-2, -1)) / norms
    return similarity.clamp(max=1)


def _comparable(one: torch.Size, other: torch.Size) -> bool:
    """Whether kernels of these shapes have one size, and the dimensions in front go together."""
    if len(one) < 2 or one[-2:] != other[-2:] or 0 in (*one, *other):
        return False
    front = zip(reversed(one[:-2]), reversed(other[:-2]), strict=False)
    return all(a == b or 1 in (a, b) for a, b in front)


def _estimate(blurry: Tensor, deblurred: Tensor, size: int) -> Tensor:
    """The kernel of one image, both ``(1, 1, H, W)`` light."""
    fade = fading(blurry, _TAPER)
    wanted = _differences(blurry) * fade
    latent, share = deblurred, _EDGES
    kernel = torch.empty(0)
    for shocks in _SHOCKS:
        kernel = _centred(_cleaned(_solved(_edges(latent, share, shocks) * fade, wanted, size)))
        latent = _deconvolved(blurry, kernel)
        share = share / _MORE_EDGES
    return kernel.flip(0, 1)  # a correlation


def _differences(image: Tensor) -> Tensor:
    """To the right and lower neighbour, ``(2, H, W)``; the image goes on at the other side."""
    image = image[0, 0]
    return torch.stack([image.roll(-1, -1) - image, image.roll(-1, -2) - image])


def _edges(image: Tensor, share: float, shocks: int) -> Tensor:
    """Differences of the image with its edges made sharp, the largest in each of four directions alone."""
    image = bilateral_blur(image, (5, 5), 0.1, (2.0, 2.0))
    for _ in range(shocks):
        image = _shocked(image)
    found = _differences(image)
    length = torch.hypot(*found)
    direction = (torch.atan2(found[1], found[0]) % math.pi / (math.pi / 4)).long().clamp(max=3)
    kept = torch.zeros_like(length, dtype=torch.bool)
    for one in range(4):
        here = torch.where(direction == one, length, 0)
        least = here.flatten().topk(max(int(min(share, 0.5) * length.numel() / 4), 1)).values[-1]
        kept |= (here >= least) & (here > 0)
    return found * kept


def _shocked(image: Tensor) -> Tensor:
    """A step of Osher and Rudin's shock filter: every pixel moves away from the middle of its edge."""
    around = F.pad(image, (1, 1, 1, 1), mode="replicate")

    def at(down: int, right: int) -> Tensor:
        height, width = image.shape[-2:]
        return around[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    across, along = (at(0, 1) - at(0, -1)) / 2, (at(1, 0) - at(-1, 0)) / 2
    bend = across**2 * (at(0, 1) - 2 * image + at(0, -1)) + along**2 * (at(1, 0) - 2 * image + at(-1, 0))
    bend = bend + across * along * (at(1, 1) + at(-1, -1) - at(1, -1) - at(-1, 1)) / 2
    return image - 0.5 * bend.sign() * (across**2 + along**2).sqrt()


def _solved(edges: Tensor, wanted: Tensor, size: int) -> Tensor:
    """The kernel by its normal equations, whose entries are correlations of the edges; NaN without edges."""
    shape = edges.shape[-2:]
    spectrum = torch.fft.rfft2(edges)
    own = torch.fft.irfft2((spectrum.conj() * spectrum).sum(0), s=shape)
    cross = torch.fft.irfft2((spectrum.conj() * torch.fft.rfft2(wanted)).sum(0), s=shape)
    # The matrix is never made: its rows are shifted copies of `own`, so it multiplies by a Fourier transform.
    twice = (2 * size, 2 * size)
    shifts = torch.fft.fftfreq(2 * size, 0.5 / size).long().to(edges.device)
    transfer = torch.fft.rfft2(own[shifts % shape[0]][:, shifts % shape[1]])
    places = torch.arange(size, device=edges.device) - size // 2

    def multiplied(kernel: Tensor) -> Tensor:
        turned = torch.fft.irfft2(transfer * torch.fft.rfft2(kernel, s=twice), s=twice)
        product: Tensor = turned[:size, :size] + _RIDGE * own[0, 0] * kernel
        return product

    return _conjugate_gradients(multiplied, cross[places % shape[0]][:, places % shape[1]])


def _conjugate_gradients(multiplied: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """The x with ``multiplied(x) == wanted``, of a symmetric positive matrix (Hestenes and Stiefel, 1952)."""
    found, left = torch.zeros_like(wanted), wanted
    step, square = left, left.square().sum()
    enough = _EXACT**2 * square
    for _ in range(_MOST_STEPS):
        image = multiplied(step)
        share = square / (step * image).sum()
        found, left = found + share * step, left - share * image
        before, square = square, left.square().sum()
        if not square > enough:
            break
        step = left + square / before * step
    return found


def _cleaned(kernel: Tensor) -> Tensor:
    """Without small values, negative ones among them, and without small parts; of sum 1."""
    kernel = torch.where(kernel < _LEAST * kernel.max(), 0, kernel)
    parts, count = ndimage.label(kernel.cpu().numpy() > 0, structure=[[1] * 3] * 3)
    labels = torch.from_numpy(parts).to(kernel.device)
    masses = [kernel[labels == part].sum() for part in range(1, count + 1)]
    for part, mass in enumerate(masses, 1):
        if mass < _ISLAND * max(masses):
            kernel = torch.where(labels == part, 0, kernel)
    return kernel / kernel.sum()


def _centred(kernel: Tensor) -> Tensor:
    """Moved by a fraction of a pixel, so that the centre of mass is the middle."""
    size = len(kernel)
    places = torch.arange(size).to(kernel) - size // 2
    down, right = ((kernel.sum(axis) * places).sum() for axis in (1, 0))
    turn = torch.eye(2, 3).to(kernel)
    turn[:, 2] = torch.stack([right, down]) * 2 / (size - 1)
    grid = F.affine_grid(turn[None], [1, 1, size, size], align_corners=True)
    moved: Tensor = F.grid_sample(kernel[None, None], grid, align_corners=True)[0, 0]
    return moved / moved.sum()


def _deconvolved(blurry: Tensor, kernel: Tensor) -> Tensor:
    """The image that the kernel makes into the blurry one, with small differences; ``(1, 1, H, W)``."""
    reach = len(kernel) // 2
    border = 2 * reach
    padded = F.pad(blurry, (border,) * 4, mode="replicate")
    shape = padded.shape[-2:]

    blur = transfer_function(kernel, shape)
    smooth = torch.fft.irfft2(torch.fft.rfft2(padded) * blur, s=shape)
    inside = fading(padded, border)
    tapered = padded * inside + smooth * (1 - inside)  # else its ends would ring
    step = torch.tensor([[-1.0, 1.0]]).to(kernel)
    energy = sum(transfer_function(one, shape).abs().square() for one in (step, step.T))
    weight = 1 + energy  # differences count as much as values
    numerator = blur.conj() * weight * torch.fft.rfft2(tapered)
    latent: Tensor = torch.fft.irfft2(numerator / (blur.abs().square() * weight + _SMOOTHNESS * energy + 1e-6), s=shape)
    return latent[..., border:-border, border:-border]
