"""A metric that is one number an image, averaged over images."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric

from reblurkit.core.checks import check_images, check_range


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
        self._range_checked = False
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """The number of each image, ``(B,)``, from float64 images ``(B, C, H, W)``."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of images ``(B, 3, H, W)`` in [0, 1]; the first batch's range is checked."""
        check_images(preds=preds, target=target)
        if not self._range_checked:
            check_range(preds=preds, target=target)
            self._range_checked = True
        values = self.per_image(preds.detach().double(), target.detach().double())
        self.total += values.sum().to(self.total.device)  # a metric that was not moved takes images from anywhere
        self.images += len(preds)

    def compute(self) -> Tensor:
        """The mean over images; NaN before the first update."""
        return self.total / self.images
