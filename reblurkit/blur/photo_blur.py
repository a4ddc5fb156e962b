"""The blur of one photo, to give to others."""

from __future__ import annotations

import torch
from kornia.filters import filter2d
from torch import Tensor

from reblurkit.blur.kernel_estimate import check_kernel_size, estimate_blur_kernel, kernel_similarity
from reblurkit.blur.random_blur import RandomBlur
from reblurkit.core.checks import check_images
from reblurkit.core.numbers import shown
from reblurkit.errors import ArgumentError, ShapeError

_REGION = 1024  # pixels a side, in the middle, that are looked at
_ROUNDING = 0.01  # of a sum: more than half precision rounds
_ALIKE = 0.85  # a quarter's kernel that is less like the whole's than this tells nothing


class PhotoBlur(RandomBlur):
    """Blurs every image with one of the kernels that a photo was found to have.

    What it has, and a network trained on random blurs does not: the blur that is wanted. :meth:`of` finds the kernels.

    Args:
        kernels: ``(N, size, size)``, nonnegative, each with sum 1; copied.
        seed: Makes the sequence of draws of this object reproducible; default: the global random state.
        linear: Blur in linear light; ``False`` filters the values as they are.

    Attributes:
        agreement: How much the parts of the photo agree on its blur, in [0, 1]: the mean similarity of the quarters'
            kernels to the whole's; NaN of kernels that were not estimated. Below 0.8 do not trust them.

    Shape:
        ``(B, C, H, W)`` in [0, 1] to the same shape. In linear light C is 3 or 1.

    Raises:
        ShapeError: If the kernels have another shape, or the input is no batch of images.
        ArgumentError: If ``seed`` is not a whole number, or the kernels are not nonnegative with sum 1.

    Example:
        >>> PhotoBlur(torch.full((1, 3, 3), 1 / 9))(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, kernels: Tensor, seed: int | None = None, linear: bool = True) -> None:
        super().__init__(seed, linear)
        if not isinstance(kernels, Tensor) or not kernels.is_floating_point() or kernels.is_meta:
            found = f"{kernels.dtype} on {kernels.device}" if isinstance(kernels, Tensor) else shown(kernels)
            raise ArgumentError(f"`kernels` must be a tensor (N, size, size) of floating point values, but is {found}")
        if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2] or kernels.shape[1] % 2 == 0 or not len(kernels):
            raise ShapeError(
                f"`kernels` must be (N, size, size) with an odd size, but their shape is {tuple(kernels.shape)}"
            )
        self.kernels = kernels.detach().cpu().clone()
        sums = self.kernels.double().sum((1, 2))
        if not (self.kernels >= 0).all() or not ((sums - 1).abs() < _ROUNDING).all():
            raise ArgumentError(
                f"`kernels` must be nonnegative, each with sum 1, but the least is {float(self.kernels.min()):.3g} "
                f"and sums lie in [{float(sums.min()):.3g}, {float(sums.max()):.3g}]; divide each by its sum"
            )
        self.agreement = float("nan")

    @classmethod
    def of(cls, blurry: Tensor, deblurred: Tensor, size: int = 31, seed: int | None = None) -> PhotoBlur:
        """The blur of a photo: the kernel of the whole, twice, and those of its quarters that resemble it.

        Of a photo without edges it is no blur at all, with an agreement of 0.

        Args:
            blurry: The photo, ``(1, 3, H, W)``, sRGB in [0, 1]; both sides at least eight times ``size``. Of a large
                one the middle is looked at, 1024 pixels a side.
            deblurred: What a network made of it, the same shape.
            size: Side of the kernels in pixels, odd; as of :func:`estimate_blur_kernel`.
            seed: As of the class.

        Raises:
            ArgumentError: If ``size`` or ``seed`` is wrong, or the images are no finite floating point values near
                [0, 1].
            ShapeError: If the images differ in shape, are too small, or more than one.
        """
        check_images(blurry=blurry, deblurred=deblurred)
        check_kernel_size(size)
        if len(blurry) != 1 or min(blurry.shape[-2:]) < 8 * size:
            raise ShapeError(
                f"kernels of {size} pixels need one photo, (1, 3, H, W), of at least {8 * size} pixels a side, but "
                f"came {tuple(blurry.shape)}"
            )
        blurry, deblurred = (_middle(image, _REGION) for image in (blurry, deblurred))
        (whole,) = estimate_blur_kernel(blurry, deblurred, size)
        quarters = estimate_blur_kernel(_quarters(blurry), _quarters(deblurred), size)
        alike = kernel_similarity(whole, quarters).nan_to_num(0)
        if whole.isnan().any():
            whole = torch.zeros_like(whole)
            whole[size // 2, size // 2] = 1
            alike = torch.zeros_like(alike)
        found = cls(torch.stack([whole, whole, *quarters[alike >= _ALIKE]]), seed)
        found.agreement = float(alike.mean())
        return found

    @property
    def border(self) -> int:
        """Half of the kernel."""
        return self.kernels.shape[-1] // 2

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw kernels, ``(count, size, size)``."""
        source = generator or self._generator
        return self.kernels[torch.randint(len(self.kernels), (count,), generator=source, device="cpu")]

    def blur_values(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur values as they are."""
        blurred: Tensor = filter2d(image, drawn, border_type="replicate")
        return blurred

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"{len(self.kernels)} kernels of {self.kernels.shape[-1]}, seed={self.seed}, linear={self.linear}"


def _middle(image: Tensor, side: int) -> Tensor:
    top, left = (max(length - side, 0) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def _quarters(image: Tensor) -> Tensor:
    """The four quarters as a batch, ``(4, 3, H // 2, W // 2)``."""
    height, width = (length // 2 for length in image.shape[-2:])
    corners = [(top, left) for top in (0, height) for left in (0, width)]
    return torch.cat([image[..., top : top + height, left : left + width] for top, left in corners])
