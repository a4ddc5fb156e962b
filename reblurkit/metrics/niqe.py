"""Natural image quality evaluator."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from reblurkit.metrics.niqe_features import Luma, luma_of, niqe_features
from reblurkit.metrics.niqe_model import PristineModel, gaussian_of
from reblurkit.metrics.per_image import PerImageMetric


class NIQE(PerImageMetric):
    """NIQE: how far the statistics of an image are from those of pristine photographs; lower is better.

    Mittal, Soundararajan and Bovik, *Making a "Completely Blind" Image Quality Analyzer* (2013): a distance, equation
    10, between two Gaussians of 36 features of blocks of 96 x 96 pixels. It needs no sharp image. Values depend on
    the model of pristine images and a little on the luma; state both. ``docs/reference/metrics.md`` compares with what
    other programs report.

    Args:
        pristine: The model to compare with. None: the authors' own, downloaded once. A path: an .npz or .mat file, see
            :meth:`PristineModel.load`. A model of :func:`~reblurkit.metrics.fit_pristine`.
        luma: ``"grey"``, MATLAB's ``rgb2gray`` as in the authors' program, or ``"y"``, the Y channel as in BasicSR;
            both rounded to whole levels.

    Shape:
        ``update(preds, target=None)`` with ``(B, 3, H, W)``, clamped to [0, 1] and rounded to 8 bits, at least two
        whole blocks; the target is ignored. ``compute()`` returns a float64 scalar; NaN if an image has fewer than
        two blocks with texture.

    Raises:
        DownloadError: If the official model is neither there nor can be downloaded.
        WeightsError: If the file is missing or damaged.

    Example:
        >>> from reblurkit.metrics import fit_pristine
        >>> images = torch.rand(2, 3, 192, 192)
        >>> niqe = NIQE(fit_pristine(images, sharpness=0.0))
        >>> niqe.update(images)
        >>> niqe.compute().shape
        torch.Size([])
    """

    higher_is_better = False

    def __init__(self, pristine: PristineModel | str | os.PathLike[str] | None = None, luma: Luma = "grey") -> None:
        super().__init__()
        self.pristine = pristine if isinstance(pristine, PristineModel) else PristineModel.kept(pristine)
        self.luma = luma

    def update(self, preds: Tensor, target: Tensor | None = None) -> None:
        """Add a batch of images ``(B, 3, H, W)`` in [0, 1]."""
        super().update(preds, preds if target is None else target)

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """NIQE of each image."""
        assert self.pristine is not None, "built for a checkpoint's networks only"
        features, _ = niqe_features(luma_of(preds, self.luma))
        return niqe_distance(features, self.pristine)


def niqe_distance(features: Tensor, pristine: PristineModel) -> Tensor:
    """Distance of images to the model of pristine ones, equation 10 of the paper.

    Args:
        features: Of the blocks of images, ``(B, N, 36)``.
        pristine: The model.

    Returns:
        ``(B,)``; NaN where fewer than two blocks have texture.
    """
    mean, covariance, count = gaussian_of(features)
    difference = (pristine.mean.to(mean) - mean)[:, None]
    defined = (count >= 2)[:, None, None]
    # The pseudo-inverse refuses NaN for the whole batch.
    pooled = (pristine.covariance.to(mean) + torch.where(defined, covariance, 0.0)) / 2
    squared = difference @ torch.linalg.pinv(pooled, hermitian=True) @ difference.mT
    return torch.where(defined, squared, torch.nan).sqrt()[:, 0, 0]
