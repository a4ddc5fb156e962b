"""A metric that is one number an image, averaged over images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

from reblurkit.core.checks import FirstBatchCheck, check_images


class PerImageMetric(Metric, ABC):
    """Base of metrics whose value is the mean over images of a number per image.

    Sums are kept in float64 and added over processes, so that the result depends neither on the batch size nor on the
    number of devices.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._check_range = FirstBatchCheck()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """The number of each image, ``(B,)``, from float64 images ``(B, C, H, W)``."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of images ``(B, 3, H, W)`` in [0, 1]; the first batch's range is checked."""
        check_images(preds=preds, target=target)
        self._check_range(preds=preds, target=target)
        values = self.per_image(preds.detach().double(), target.detach().double())
        self.total += values.sum().to(self.total.device)  # a metric that was not moved takes images from anywhere
        self.images += len(preds)

    def compute(self) -> Tensor:
        """The mean over images; NaN before the first update."""
        return self.total / self.images


def named_values(name: str, value: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a metric has computed, by name; of a metric that is several, by its own names."""
    return dict(value) if isinstance(value, Mapping) else {name: value}


def values_of_each(metric: Metric, name: str, *images: Tensor) -> dict[str, list[float]]:
    """Add a batch to a metric, and measure each of its images alone.

    Args:
        metric: Any metric of images.
        name: Its name.
        images: What it is called with, each ``(B, C, H, W)``.

    Returns:
        The values by name, one for each image.

    Example:
        >>> from reblurkit.metrics import PSNR
        >>> psnr, image = PSNR(), torch.zeros(2, 3, 8, 8)
        >>> values = values_of_each(psnr, "psnr", image, torch.stack([image[0] + 0.1, image[0] + 0.01]))
        >>> [round(value, 3) for value in values["psnr"]]
        [20.0, 40.0]
        >>> round(float(psnr.compute()), 3)
        30.0
    """
    each = zip(*(torch.split(image, 1) for image in images), strict=True)
    rows = [named_values(name, metric(*pair)) for pair in each]
    return {key: [float(row[key]) for row in rows] for key in rows[0]} if rows else {}
