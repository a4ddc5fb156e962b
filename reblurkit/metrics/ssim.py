"""Structural similarity."""

from __future__ import annotations

from kornia.metrics import ssim
from torch import Tensor

from reblurkit.errors import ShapeError
from reblurkit.metrics.per_image import PerImageMetric

_WINDOW = 11  # 3.5 standard deviations to each side of the centre, rounded


class SSIM(PerImageMetric):
    """Structural similarity of Wang et al. (2004), of each channel alone, averaged over channels and images.

    Equal to ``skimage.metrics.structural_similarity(..., channel_axis=-1, data_range=1, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False)``, which averages over the windows that lie inside the image. MATLAB's
    ``ssim`` on an RGB array, used by many papers, treats colour as a third dimension of space and reports higher
    values; ``docs/reference/metrics.md`` has more.

    Shape:
        ``update(preds, target)`` with ``(B, 3, H, W)`` in [0, 1], sides at least 11; ``compute()`` returns a float64
        scalar.

    Example:
        >>> import torch
        >>> metric, image = SSIM(), torch.rand(1, 3, 16, 16)
        >>> metric.update(image, image)
        >>> metric.compute()
        tensor(1.0000, dtype=torch.float64)
    """

    higher_is_better = True

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """SSIM of each image."""
        if min(preds.shape[-2:]) < _WINDOW:
            raise ShapeError(f"SSIM needs images of at least 11 x 11 pixels, but came {tuple(preds.shape[-2:])}")
        index: Tensor = ssim(preds, target, _WINDOW, max_val=1.0, padding="valid")
        return index.mean(dim=(1, 2, 3))
