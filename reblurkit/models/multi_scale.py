"""A deblurring network at several sizes of the image, for blur longer than it knows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.calls import finest_scale, needs_of, stack_length
from reblurkit.core.numbers import is_number, shown
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models.full_size import FullSize

_MOST = 5  # a sixteenth of the size
_POWER = 4


class MultiScale(nn.Module):
    """A deblurring network at full, half and quarter size of the image; the size at which it finds most blur counts.

    Not from a paper. Blur of 40 pixels is blur of 20 pixels in the image of half the size. So the network deblurs the
    image at each size, and what it changes there, enlarged, is one proposal for the image. The proposals are averaged,
    weighted by the fourth power of their mean squares over the image: a size at which the network finds less to remove
    has hardly a say. Nothing is trained, and the network stays as it is.

    The power was chosen on eight Kodak photos and twenty training photos with the network in the box.

    Args:
        network: A deblurring network of single images; of a list of scales, from coarse to fine, the last counts and is
            returned alone, in training mode, too.
        scales: How many sizes, each half of the one before, from 1 (the network alone) to 5. Three take 1.31 times
            the arithmetic of the network.

    Attributes:
        multiple: What height and width divide by if no scale shall be padded.
        smallest: The shortest side that the network takes; smaller sizes are padded by reflection.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, not clamped.

    Raises:
        ArgumentError: If there are too few or too many scales, the network takes several frames, or makes anything but
            floating point values.
        ShapeError: If the network makes images of another shape.

    Example:
        >>> from reblurkit.models import UNet
        >>> MultiScale(UNet(blocks=1, widths=(8, 8, 8)))(torch.rand(1, 3, 99, 70)).shape
        torch.Size([1, 3, 99, 70])
    """

    def __init__(self, network: nn.Module, scales: int = 3) -> None:
        super().__init__()
        if not is_number(scales, int) or not 1 <= scales <= _MOST:
            raise ArgumentError(f"`scales` must be a whole number from 1 to {_MOST}, but is {shown(scales)}")
        self.network = FullSize(network)  # for its padding
        if (frames := stack_length(network)) > 1:
            raise ArgumentError(
                f"several scales are for networks of single images, but {type(network).__name__} takes {frames} frames"
            )
        self.training = network.training
        self.scales = scales
        needs = needs_of(network)
        self.multiple = needs.multiple * 2 ** (scales - 1)
        self.smallest = needs.smallest

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        size = blurry.shape[-2:]
        changes = [self._change(blurry)]
        for scale in range(1, self.scales):
            small = F.interpolate(blurry, [-(-side // 2**scale) for side in size], mode="area")
            changes.append(F.interpolate(self._change(small), size, mode="bilinear"))
        deblurred: Tensor = blurry + (_weights(changes) * torch.stack(changes)).sum(0)
        return deblurred

    def _change(self, blurry: Tensor) -> Tensor:
        """What the network adds to an image."""
        deblurred = finest_scale(self.network(blurry.clone()))  # some write into their input
        if deblurred.shape != blurry.shape:
            raise ShapeError(
                f"{type(self.network.network).__name__} must make images of shape {tuple(blurry.shape)}, but made "
                f"{tuple(deblurred.shape)}"
            )
        if not deblurred.is_floating_point():
            raise ArgumentError(f"the network must make floating point values in [0, 1], but made {deblurred.dtype}")
        return deblurred - blurry


def _weights(changes: list[Tensor]) -> Tensor:
    """Weights ``(scales, B, 1, 1, 1)`` of what each scale changes; they sum to 1."""
    dtype = changes[0].dtype
    wide = torch.promote_types(dtype, torch.float32)  # squares are too small for half precision
    energies = torch.stack([change.to(wide).square().mean((1, 2, 3), keepdim=True) for change in changes])
    return torch.softmax(_POWER * energies.clamp(min=torch.finfo(wide).tiny).log(), 0).to(dtype)
