"""Loaders for the translation of blur."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from reblurkit.data.cache import CacheFolder
from reblurkit.data.paired import PairedFolder
from reblurkit.data.photos import BlurryFolder
from reblurkit.data.unpaired import UnpairedFolder
from reblurkit.plugins.datamodules.image import ImageDataModule, Stage


class UnpairedDataModule(ImageDataModule):
    """Unpaired images of a camera for training, its blurry images for everything else.

    See :class:`reblurkit.data.UnpairedFolder` for the folders, which lie below the root or are absolute.

    Args:
        root: The folder that holds the others.
        blurry: Folder of the camera's blurry training images.
        sharp: Folder of its sharp images, of other scenes.
        known_blurry: Folder of blurry images of the known blur.
        known_sharp: Folder of their sharp versions, in the same order.
        ratio: Take the first ``ratio`` of the blurry and the rest of the sharp images, which makes a paired set
            unpaired.
        resize: Shorter side of blurry and sharp training images; 512 in the authors' program.
        val_blurry: Folder of the blurry validation images; not read with ``trainer.limit_val_batches=0``.
        val_sharp: Folder of their sharp versions, files of equal names; ``null``: there are none.
        test_blurry: The same for tests and prediction.
        test_sharp: The same for tests.
        batch_size: Crops a batch and process; 1 in the paper.
        crop: Side of the training crops in pixels.
        cache: Folder that keeps the decoded images, see :class:`reblurkit.data.cache.ImageCache`; ``true``: a folder
            in the cache of ``torch.hub``; ``null``: files are decoded each time.
        num_workers: Processes that read.
        seed: Order, choice, crops and flips are a function of (seed, epoch, index).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        blurry: str = "trainA",
        sharp: str = "trainB",
        known_blurry: str | None = "trainC",
        known_sharp: str | None = "trainD",
        ratio: float | None = None,
        resize: int | None = None,
        val_blurry: str = "testA",
        val_sharp: str | None = None,
        test_blurry: str = "testA",
        test_sharp: str | None = None,
        batch_size: int = 1,
        crop: int = 256,
        cache: CacheFolder = None,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, None)
        self.root = Path(root)
        self._training: dict[str, Any] = {
            "blurry": blurry,
            "sharp": sharp,
            "known_blurry": known_blurry,
            "known_sharp": known_sharp,
            "ratio": ratio,
            "resize": resize,
            "cache": cache,
            "crop": crop,
            "seed": seed,
        }
        self.cache = cache
        self._whole = {"val": (val_blurry, val_sharp), "test": (test_blurry, test_sharp)}

    def dataset(self, stage: Stage) -> Dataset[Any]:
        """Crops for training; else whole blurry images, with their sharp versions where there are any."""
        if stage == "train":
            return UnpairedFolder(self.root, **self._training)
        blurry, sharp = self._whole[stage]
        if sharp is None:
            return BlurryFolder(self.root / blurry, cache=self.cache)
        return PairedFolder(self.root, "folders", split=None, blur=blurry, sharp=sharp, cache=self.cache)
