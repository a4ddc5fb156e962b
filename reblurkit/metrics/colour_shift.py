"""How far a network moves the colours of an image."""

from __future__ import annotations

from torch import Tensor

from reblurkit.metrics.per_image import PerImageMetric


class ColourShift(PerImageMetric):
    """The shift of an image's mean colour in grey levels of 255: of the channel that moved most, then over images.

    Blur keeps the mean of a photo to within a fraction of a level, and so should translation of blur and deblurring.

    Shape:
        ``update(preds, target)`` with ``(B, 3, H, W)`` in [0, 1]; ``compute()`` returns a float64 scalar.

    Example:
        >>> import torch
        >>> shift = ColourShift()
        >>> shift.update(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.5 + 1 / 255))
        >>> round(shift.compute().item(), 4)
        1.0
    """

    higher_is_better = False

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """The shift of each image."""
        return 255 * (preds.mean((2, 3)) - target.mean((2, 3))).abs().amax(1)
