"""Loaders of synthetic pairs: sharp photos are blurred on the training device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset

from reblurkit.blur.motion import MotionBlur
from reblurkit.blur.noise import CameraNoise
from reblurkit.blur.random_blur import DrawnBlur
from reblurkit.blur.shake import ShakeBlur
from reblurkit.data.cache import CacheFolder
from reblurkit.data.photos import PhotoFolder
from reblurkit.data.synthetic import PlannedBatch, SyntheticCrops, SyntheticPhotos, check_blurs, synthesise
from reblurkit.errors import DatasetNotFoundError
from reblurkit.plugins.datamodules.image import ImageDataModule, Stage

_HELD_OUT = 20  # one photo in so many validates, where no folder for it is named


class SyntheticBlurDataModule(ImageDataModule):
    """Pairs from sharp photos alone: random crops are blurred on the training device, each time anew.

    Workers read crops and draw the blur; the device blurs, adds noise and rounds. A crop, its blur and its noise are a
    function of (seed, epoch, index), whatever the number of workers and processes. Validation and test blur whole
    photos, each with one blur that never changes. The hook ``on_after_batch_transfer`` is this module's: Lightning does
    not call a LightningModule's.

    Args:
        root: Folder of sharp photos.
        val_root: Folder of the photos to validate on; default: every twentieth photo of ``root``, which training then
            leaves out.
        test_root: Folder of the photos to test on and to predict; default: those to validate on.
        blur: Random blurs, of which one blurs a crop; default ``MotionBlur()`` and ``ShakeBlur(25)``.
        noise: What the camera adds; default ``CameraNoise()``. ``False``: nothing.
        sharp_share: Share of the training crops that stay as they are, so that a network learns to leave sharp photos
            alone.
        soft_share: Of the training crops whose blur is one of values as they are (``linear=False``), as in frames of
            video, the share that is enlarged first, by up to 2, and so is as soft as these; of those that stay sharp,
            as many are.
        batch_size: Crops a batch and process.
        crop: Side of the training crops in pixels.
        crops_per_photo: Training crops of each photo in an epoch.
        augment: Flip and turn the training crops.
        cache: Folder that keeps the decoded photos, see :class:`reblurkit.data.cache.ImageCache`; ``true``: a folder
            in the cache of ``torch.hub``; ``null``: photos are decoded for each crop.
        num_workers: Processes that read crops and draw blurs.
        seed: Crops, flips and turns, blur and noise are a function of it, epoch and index.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        val_root: str | os.PathLike[str] | None = None,
        test_root: str | os.PathLike[str] | None = None,
        blur: Sequence[DrawnBlur] | None = None,
        noise: CameraNoise | bool = True,
        sharp_share: float = 0.0,
        soft_share: float = 0.0,
        batch_size: int = 16,
        crop: int = 128,
        crops_per_photo: int = 16,
        augment: bool = True,
        cache: CacheFolder = None,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, None)
        self.root = root
        self.val_root = val_root
        self.test_root = test_root
        self.blur: Sequence[DrawnBlur] = [MotionBlur(), ShakeBlur(25)] if blur is None else blur
        check_blurs(self.blur)
        self.noise = CameraNoise() if noise is True else (noise or None)
        self.sharp_share = sharp_share
        self.soft_share = soft_share
        self.crop = crop
        self.crops_per_photo = crops_per_photo
        self.augment = augment
        self.cache = cache

    def dataset(self, stage: Stage) -> Dataset[Any]:
        """Crops of the training photos, or the others whole."""
        photos = self._photos(stage)
        if stage != "train":
            if len(photos) < len(self.blur):
                rank_zero_warn(
                    f"{len(photos)} {'photo' if len(photos) == 1 else 'photos'} to measure on: "
                    f"{len(self.blur) - len(photos)} of {len(self.blur)} blurs are not seen there; name a `val_root` "
                    "or a `test_root` with more"
                )
            return SyntheticPhotos(photos, self.blur, seed=self.seed)
        return SyntheticCrops(
            photos,
            self.blur,
            crop=self.crop,
            repeats=self.crops_per_photo,
            sharp_share=self.sharp_share,
            soft_share=self.soft_share,
            augment=self.augment,
            seed=self.seed,
        )

    def _photos(self, stage: Stage) -> PhotoFolder:
        if stage == "test" and self.test_root is not None:
            return PhotoFolder(self.test_root, cache=self.cache)
        if stage != "train" and self.val_root is not None:
            return PhotoFolder(self.val_root, cache=self.cache)
        photos = PhotoFolder(self.root, cache=self.cache)
        if self.val_root is not None:
            return photos
        if len(photos) < 2:
            raise DatasetNotFoundError(
                f"one photo in {self.root} cannot both train and validate: add photos, or name a `val_root`"
            )
        return photos.subset([i for i in range(len(photos)) if (i % _HELD_OUT != 0) == (stage == "train")])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Do what the workers planned."""
        if not isinstance(batch, PlannedBatch):
            return batch
        pairs = synthesise(batch, self.blur, self.noise)
        return pairs if self.trainer is None else self.trainer.precision_plugin.convert_input(pairs)
