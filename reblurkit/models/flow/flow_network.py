"""What all optical flow networks here have in common."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_images
from reblurkit.errors import ShapeError


class FlowNetwork(nn.Module):
    """Optical flow from one image to another, at full size and in pixels.

    The flow lives on the source's grid and points into the target: ``source(p) = target(p + flow(p))``. Images are
    padded at the right and lower border by repetition to what the network needs, and the flow is cropped.

    Shape:
        source and target ``(B, 3, H, W)``, RGB in [0, 1], any H and W; flow ``(B, 2, H, W)``, channel 0 = u to the
        right, channel 1 = v down.

    Raises:
        ShapeError: If the images' shapes differ or they have not 3 channels.
        ArgumentError: If they are not floating point, or on different devices.
    """

    multiple: int = 1
    """What height and width are padded to a multiple of."""
    smallest: int = 1
    """What height and width are padded to at least."""
    differentiable: bool = True
    """Whether gradients reach the images and the network's parameters."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the flow from the source to the target."""
        check_images(source=source, target=target)
        if source.shape[1] != 3:
            raise ShapeError(f"flow networks need RGB images (B, 3, H, W), but `source` is {tuple(source.shape)}")
        height, width = source.shape[-2:]
        padding = (0, self._missing(width), 0, self._missing(height))
        source, target = (F.pad(image, padding, mode="replicate") for image in (source, target))
        return self.estimate(source, target)[..., :height, :width]

    def _missing(self, size: int) -> int:
        wanted = max(size, self.smallest)
        return wanted + -wanted % self.multiple - size

    @abstractmethod
    def estimate(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow between images whose sides the network can take."""
