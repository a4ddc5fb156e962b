"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from reblurkit.metrics.per_image import PerImageMetric


class PSNR(PerImageMetric):
    """Peak signal-to-noise ratio in dB: over all RGB values of an image, then the mean over images.

    Equal to ``skimage.metrics.peak_signal_noise_ratio(target, preds, data_range=1)`` averaged over images. Not the
    same as PSNR of the luma (a habit of super-resolution), nor as one PSNR of the pooled error of all images
    (torchmetrics' default), which is lower. Identical images count as 100 dB.

    Args:
        quantize: Clamp to [0, 1] and round to 8 bits first, as if the images had been saved as PNG files.

    Shape:
        ``update(preds, target)`` with ``(B, 3, H, W)`` in [0, 1]; ``compute()`` returns a float64 scalar.

    Example:
        >>> psnr = PSNR()
        >>> psnr.update(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.1))
        >>> psnr.compute()
        tensor(20.0000, dtype=torch.float64)
    """

    higher_is_better = True

    def __init__(self, quantize: bool = False) -> None:
        super().__init__()
        self.quantize = quantize

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """PSNR of each image."""
        if self.quantize:
            preds, target = ((image.clamp(0, 1) * 255).round() / 255 for image in (preds, target))
        # torchmetrics' function keeps its logarithms in float32, an error of 1e-6 dB
        error = ((preds - target) ** 2).mean(dim=(1, 2, 3))
        return torch.where(error == 0, 100.0, -10 * torch.log10(error))


class ReblurPSNR(PSNR):
    """PSNR of reblurred images M_R(L) to the blurry images B: how much blur a reblurring network finds in L.

    The statistic of Table 1 of Nah et al., *Clean Images are Hard to Reblur* (2021): the better an image is deblurred,
    the *lower* it is. Compare values of one reblurring network, or of networks trained alike.

    Args:
        quantize: Clamp to [0, 1] and round to 8 bits first, as :class:`PSNR` does.

    Shape:
        ``update(preds, target)`` with M_R(L) and B, ``(B, 3, H, W)`` in [0, 1].
    """

    higher_is_better = False
