"""The blur that remains in a deblurred image, as a kernel, and how wide it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from reblurkit.core.checks import check_images
from reblurkit.errors import ArgumentError, ShapeError

Place = tuple[int, int]

_REGULARISATION = 0.01  # beta, in units of the mean of the normal matrix' diagonal
_LEAST = 1 / 20  # of the largest value; Cho and Lee's


def remaining_blur_kernel(
    deblurred: Tensor,
    sharp: Tensor,
    size: int = 21,
    center: Place | Sequence[Place] | None = None,
    *,
    patch: int | None = None,
) -> Tensor:
    """The kernel that makes the sharp image, around a place, into the deblurred one.

    A perfectly deblurred image has a dot; a line or a path is motion that was not removed. It is what Fig. 1 of Nah et
    al., *Clean Images are Hard to Reblur* (2021), draws, after Cho and Lee, *Fast Motion Deblurring* (2009), equation
    9: the kernel k minimises::

        sum over d of |k * d(S) - d(L)|^2 + beta |k|^2

    with d the horizontal and the vertical differences of the grey images, in closed form, by the normal equations of
    all values of k. Then values below a twentieth of the largest, negative ones among them, are set to 0, and the rest
    is divided by its sum, as the authors do.

    Different from them: beta is 0.01 of the mean diagonal of the normal matrix, so that neither contrast nor the size
    of the patch matters; only places whose whole neighbourhood lies in the image are compared, where they repeat it
    periodically; first differences alone, without their second ones.

    The kernel is a correlation, ``L(p) = sum over q of k(q) S(p + q)``, as are all kernels of this package, so that a
    kernel of :class:`reblurkit.blur.ShakeBlur` comes back as it was drawn. Values are taken as they are: of blur made
    in linear light it is the best kernel for the encoded image. In a place without texture nothing tells the kernel.

    Args:
        deblurred: ``(B, C, H, W)`` in [0, 1]; or any other version of the sharp image: blurry, reblurred.
        sharp: The truth, ``(B, C, H, W)`` in [0, 1].
        size: Side of the kernel in pixels, odd, at least 3.
        center: Row and column of the place; a list of places, see :func:`grid_of_places`; default: the image's middle.
        patch: Side in pixels of the square around the place that is compared; default: five times ``size``, or what
            the image has room for. Together with the kernel's reach it must lie in the image.

    Returns:
        float64, nonnegative, of sum 1: ``(B, size, size)``; of a list of places ``(B, places, size, size)``. Where the
        sharp patch is flat there is no answer, and NaN.

    Raises:
        ArgumentError: If ``size`` is not odd and at least 3, or the images are no floating point images.
        ShapeError: If the images differ in shape, or a place is too near to the border.

    Example:
        >>> sharp = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> moved = sharp.roll(1, -1)  # every pixel is its left neighbour
        >>> kernel = remaining_blur_kernel(moved, sharp, size=5)
        >>> divmod(int(kernel[0].argmax()), 5)
        (2, 1)
    """
    check_images(deblurred=deblurred, sharp=sharp)
    if size < 3 or size % 2 == 0:
        raise ArgumentError(f"`size` of a kernel must be an odd number of pixels, at least 3, but is {size}")
    height, width = sharp.shape[-2:]
    if patch is None:
        patch = min(5 * size, min(height, width) - size)
    places = _places(center, (height, width))
    kernels = [_kernels(deblurred, sharp, size, place, patch) for place in places]
    return kernels[0] if center is None or isinstance(center[0], int) else torch.stack(kernels, 1)


def grid_of_places(height: int, width: int, rows: int, columns: int) -> list[Place]:
    """The middles of equal rectangles that an image is divided into, row by row.

    Args:
        height: Of the image in pixels.
        width: Of the image in pixels.
        rows: Rectangles above each other.
        columns: Rectangles beside each other.

    Example:
        >>> grid_of_places(100, 200, 1, 2)
        [(50, 50), (50, 150)]
    """
    return [
        (height * (2 * row + 1) // (2 * rows), width * (2 * column + 1) // (2 * columns))
        for row in range(rows)
        for column in range(columns)
    ]


def spread(kernel: Tensor, least: float = 0.0) -> Tensor:
    """How wide a kernel is: the root of its second moment about its centre of mass, in pixels.

    0 for a dot, wherever it lies; for a straight stroke of n pixels about n / 3.5; for a Gaussian 1.4 sigma. Far
    values weigh most: where a network did what no filter does, they are a faint cloud that says nothing of blur, and
    ``least=0.2``, say, leaves it out.

    Args:
        kernel: ``(..., H, W)``, nonnegative, not all 0.
        least: Values below this share of the largest do not count, in [0, 1].

    Returns:
        ``(...)``, in pixels.

    Raises:
        ShapeError: If the kernel has fewer than two dimensions.
        ArgumentError: If ``least`` is not in [0, 1].

    Example:
        >>> spread(torch.tensor([[0.25, 0.25, 0.25, 0.25]]))
        tensor(1.1180)
    """
    if kernel.ndim < 2:
        raise ShapeError(f"`kernel` must be (..., H, W), but its shape is {tuple(kernel.shape)}")
    if not 0 <= least <= 1:
        raise ArgumentError(f"`least` must be in [0, 1], but is {least}")
    kernel = torch.where(kernel < least * kernel.amax((-2, -1), keepdim=True), 0, kernel)
    mass = kernel / kernel.sum((-2, -1), keepdim=True)
    variance = torch.zeros_like(mass[..., 0, 0])
    for axis in (-2, -1):
        marginal = mass.sum(-3 - axis)  # over the other axis
        position = torch.arange(kernel.shape[axis], device=kernel.device, dtype=kernel.dtype)
        mean = (marginal * position).sum(-1, keepdim=True)
        variance = variance + (marginal * (position - mean).square()).sum(-1)
    return variance.sqrt()


def _places(center: Place | Sequence[Place] | None, size: Place) -> list[Place]:
    if center is None:
        return [(size[0] // 2, size[1] // 2)]
    places = [center] if isinstance(center[0], int) else list(center)
    if not all(len(place) == 2 for place in places):  # type: ignore[arg-type]  # an int alone fails here, as it should
        raise ArgumentError(f"`center` must be a place (row, column) or a list of places, but is {center}")
    return places  # type: ignore[return-value]


def _kernels(deblurred: Tensor, sharp: Tensor, size: int, place: Place, patch: int) -> Tensor:
    """The kernels at one place, ``(B, size, size)``."""
    reach = size // 2
    above, left = (middle - patch // 2 for middle in place)
    below, right = above + patch, left + patch
    height, width = sharp.shape[-2:]
    if patch < size or min(above, left) < reach or below > height - reach or right > width - reach:
        raise ShapeError(
            f"a kernel of {size} pixels needs a patch of at least {size} pixels and {reach} more on every side, but "
            f"around {place} the image of {height} x {width} has no room for a patch of {patch}; choose another "
            "`center`, or a smaller `size` or `patch`"
        )
    ours = deblurred[..., above:below, left:right].detach().double().mean(1, keepdim=True)
    theirs = sharp[..., above - reach : below + reach, left - reach : right + reach].detach().double()
    theirs = theirs.mean(1, keepdim=True)
    columns, targets = [], []
    for axis in (-2, -1):
        columns.append(F.unfold(theirs.diff(dim=axis), size))  # (B, size^2, pixels)
        targets.append(ours.diff(dim=axis).flatten(1))
    neighbours, target = torch.cat(columns, 2), torch.cat(targets, 1)
    normal = neighbours @ neighbours.mT
    diagonal = normal.diagonal(dim1=1, dim2=2)
    beta = _REGULARISATION * diagonal.mean(1, keepdim=True)
    # A flat patch has nothing but zeros: with ones on the diagonal the system has a solution, 0, and 0 / 0 is NaN.
    diagonal += torch.where(beta > 0, beta, 1)
    kernel = torch.linalg.solve(normal, neighbours @ target[..., None])[..., 0]
    kernel = torch.where(kernel < _LEAST * kernel.amax(1, keepdim=True), 0, kernel).clamp(min=0)
    return (kernel / kernel.sum(1, keepdim=True)).view(-1, size, size)
