"""Scores of sequences whose direction of time cannot be known."""

from __future__ import annotations

import torch
from torch import Tensor

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.metrics.per_image import PerImageMetric


class MaxOverOrder(PerImageMetric):
    """A clip's mean score, of its frames in order or in reversed order, whichever is larger.

    HyperCUT (Pham et al., 2023) writes it pPSNR and pSSIM: of a blurry frame alone nobody can tell whether the motion
    went forwards or backwards. The tables of *Blur2Blur* carry the same names for single images, where it is the plain
    score. Never put it beside plain scores of sequences: it is larger.

    Args:
        metric: A metric of images where larger is better, such as ``PSNR()`` or ``SSIM()``.

    Shape:
        ``update(preds, target)`` with clips ``(B, T, 3, H, W)`` in [0, 1]; ``compute()`` returns a float64 scalar, the
        mean over clips.

    Raises:
        ArgumentError: If smaller is better in the metric.
        ShapeError: If the inputs are no clips of one shape.

    Example:
        >>> from reblurkit.metrics import PSNR
        >>> clip = torch.rand(1, 5, 3, 8, 8)
        >>> metric = MaxOverOrder(PSNR())
        >>> metric.update(clip.flip(1), clip)
        >>> metric.compute()
        tensor(100., dtype=torch.float64)
    """

    higher_is_better = True

    def __init__(self, metric: PerImageMetric) -> None:
        super().__init__()
        if not metric.higher_is_better:
            raise ArgumentError(f"`metric` must be one where larger is better, but is {type(metric).__name__}")
        self.metric = metric

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of clips."""
        if preds.ndim != 5 or preds.shape != target.shape:
            raise ShapeError(
                f"`preds` and `target` must be clips (B, T, 3, H, W) of one shape, but are {tuple(preds.shape)} and "
                f"{tuple(target.shape)}"
            )
        preds, target = preds.detach().double(), target.detach().double()
        for clip, truth in zip(preds, target, strict=True):
            scores = [self.per_image(order, truth).mean() for order in (clip, clip.flip(0))]
            self.total += torch.stack(scores).amax()
            self.images += 1

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """The score of each frame."""
        return self.metric.per_image(preds, target)
