"""How sharp images are, told from their gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from reblurkit.core.checks import check_images
from reblurkit.errors import ShapeError


class GradientStatistics(Metric):
    """Compares the gradient magnitudes of two sets of images.

    Blur takes away strong gradients. Two numbers per image, averaged over images:

    - ``gradient_ratio``: mean gradient magnitude of ``preds`` over that of ``target``. 1: as sharp; below: blurrier;
      above: noisier or over-sharpened. Images whose target is perfectly flat do not count.
    - ``gradient_distance``: Wasserstein-1 distance of the two distributions of magnitudes, in image units per pixel.
      Unlike the ratio it cannot be met by adding weak noise where strong edges are missing; 0 is perfect.

    Magnitudes are Euclidean norms of forward differences, of each channel.

    Shape:
        ``update(preds, target)`` with ``(B, C, H, W)`` in [0, 1], sides at least 2; ``compute()`` returns a dict of
        float64 scalars.

    Example:
        >>> statistics, image = GradientStatistics(), torch.rand(1, 3, 8, 8)
        >>> statistics.update(0.5 * image, image)
        >>> statistics.compute()["gradient_ratio"]
        tensor(0.5000, dtype=torch.float64)
    """

    is_differentiable = False
    full_state_update = False
    ratio: Tensor
    comparable: Tensor
    distance: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("ratio", "comparable", "distance", "images"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of images."""
        check_images(preds=preds, target=target)
        if min(preds.shape[-2:]) < 2:
            raise ShapeError(f"gradients need images of at least 2 x 2 pixels, but came {tuple(preds.shape[-2:])}")
        ours, theirs = _magnitudes(preds), _magnitudes(target)
        textured = theirs.any(1)  # a flat target has no gradients to compare with
        ratio = torch.where(textured, ours.mean(1) / theirs.mean(1), 0).sum()
        distance = (ours.sort(1).values - theirs.sort(1).values).abs().mean(1).sum()
        device = self.images.device  # a metric that was not moved takes images from anywhere
        self.ratio += ratio.to(device)
        self.comparable += textured.sum().to(device)
        self.distance += distance.to(device)
        self.images += len(preds)

    def compute(self) -> dict[str, Tensor]:
        """Both statistics; NaN before the first update."""
        return {"gradient_ratio": self.ratio / self.comparable, "gradient_distance": self.distance / self.images}


def _magnitudes(image: Tensor) -> Tensor:
    """Gradient magnitudes ``(B, C * (H - 1) * (W - 1))`` in float64."""
    image = image.detach().double()
    down = image[..., 1:, :-1] - image[..., :-1, :-1]
    right = image[..., :-1, 1:] - image[..., :-1, :-1]
    return torch.hypot(down, right).flatten(1)
