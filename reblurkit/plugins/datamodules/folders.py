"""The data sets of :mod:`reblurkit.data` with loaders for training and evaluation."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset

from reblurkit.blur.random_blur import DrawnBlur
from reblurkit.blur.shake import ShakeBlur
from reblurkit.data.cache import CacheFolder
from reblurkit.data.demo import DemoPhotos
from reblurkit.data.paired import PairedFolder
from reblurkit.data.photos import BlurryFolder
from reblurkit.data.video import VideoFolder
from reblurkit.plugins.datamodules.image import ImageDataModule, PairAugmentation, Stage


class PairedDataModule(ImageDataModule):
    """Training, validation and test pairs of one folder; see :class:`reblurkit.data.PairedFolder` for the layouts.

    Args:
        root: The data set's folder.
        layout: ``"folders"``, ``"gopro"`` or another of them.
        blur: Name of the blurry images' folder, or a pattern such as ``"blur/*"`` or ``"blur_*.png"``.
        sharp: The same for the sharp images.
        list_file: A file that names the pairs to take, such as ``"lists/{split}.txt"``.
        train_split: Split or folder of the training pairs, or ``null`` if the root has no split folders.
        val_split: The same of the validation pairs; not read with ``trainer.limit_val_batches=0``.
        test_split: The same of the test pairs.
        predict_root: Folder of blurry photos, which need no sharp ones, for ``predict``; default: the test set.
        batch_size: Crops a batch and process.
        crop: Side of the training crops in pixels.
        augment: Augment the training crops: flips, turns, colours, noise.
        device_augmentation: Augments training batches on their device, after ``augment``: called with the blurry and
            the sharp images, each ``(B, 3, crop, crop)``, it returns both, treated alike, as Kornia's
            ``AugmentationSequential`` with ``data_keys=["input", "input"]`` does. What it draws from torch's random
            numbers is a function of (seed, epoch, names in the batch).
        cache: Folder that keeps the decoded images, see :class:`reblurkit.data.cache.ImageCache`; ``true``: a folder
            in the cache of ``torch.hub``; ``null``: files are decoded each time.
        num_workers: Processes that read and augment.
        seed: Order, crops and augmentation are a function of (seed, epoch, index).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: str = "folders",
        *,
        blur: str | None = None,
        sharp: str | None = None,
        list_file: str | None = None,
        train_split: str | None = "train",
        val_split: str | None = "val",
        test_split: str | None = "test",
        predict_root: str | os.PathLike[str] | None = None,
        batch_size: int = 16,
        crop: int = 256,
        augment: bool = True,
        device_augmentation: PairAugmentation | None = None,
        cache: CacheFolder = None,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, device_augmentation)
        self.root = root
        self.layout = layout
        self.blur = blur
        self.sharp = sharp
        self.list_file = list_file
        self.splits: dict[Stage, str | None] = {"train": train_split, "val": val_split, "test": test_split}
        self.predict_root = predict_root
        self.cache = cache
        self.crop = crop
        self.augment = augment

    def setup(self, stage: str) -> None:
        """Build the data sets; says so if validation or test use the training images."""
        super().setup(stage)
        train, val = (self._sets.get(name) for name in ("train", "val"))
        if isinstance(train, PairedFolder) and isinstance(val, PairedFolder) and train.pairs == val.pairs:
            rank_zero_warn("validation uses the training images; its metrics say nothing about other images")
        if stage == "test" and self._undivided():
            rank_zero_warn(
                "the test set is all of the data, training images too; its metrics say nothing about other images. "
                "Where the data have a folder for each split, write {split} into the patterns of `blur` and `sharp`"
            )

    def _undivided(self) -> bool:
        """Whether patterns of one's own leave the splits out; so does a root without them, which is told by null."""
        patterns = [pattern for pattern in (self.blur, self.sharp) if pattern and ("*" in pattern or "<" in pattern)]
        divided = self.list_file is not None or any("{split}" in pattern for pattern in patterns)
        return len(patterns) == 2 and not divided and self.splits["train"] is not None

    def predict_dataset(self) -> Dataset[Any]:
        """The photos of ``predict_root``, or the test set."""
        return super().predict_dataset() if self.predict_root is None else BlurryFolder(self.predict_root)

    def dataset(self, stage: Stage) -> PairedFolder:
        """The pairs of a stage."""
        training = stage == "train"
        return PairedFolder(
            self.root,
            self.layout,
            split=self.splits[stage],
            blur=self.blur,
            sharp=self.sharp,
            list_file=self.list_file,
            cache=self.cache,
            crop=self.crop if training else None,
            augment=self.augment and training,
            seed=self.seed,
        )


class DemoDataModule(ImageDataModule):
    """Photographs bundled with scikit-image, blurred by random camera shake; see :class:`reblurkit.data.DemoPhotos`.

    Validation and test use the same two held-out photos.

    Args:
        batch_size: Crops a batch and process.
        crop: Side of the training crops in pixels.
        crops_per_photo: Training crops of each photo in an epoch.
        blur: The random blur; default ``ShakeBlur()``.
        device_augmentation: Augments training batches on their device; as of :class:`PairedDataModule`.
        num_workers: Processes that blur and augment.
        seed: Order, crops, blur and augmentation are a function of (seed, epoch, index).
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        crop: int = 96,
        crops_per_photo: int = 64,
        blur: DrawnBlur | None = None,
        device_augmentation: PairAugmentation | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, device_augmentation)
        self.crop = crop
        self.crops_per_photo = crops_per_photo
        self.blur = blur or ShakeBlur()

    def dataset(self, stage: Stage) -> DemoPhotos:
        """The photos of a stage."""
        return DemoPhotos(
            "train" if stage == "train" else "test",
            crop=self.crop,
            crops_per_photo=self.crops_per_photo,
            blur=self.blur,
            seed=self.seed,
        )


class VideoDataModule(ImageDataModule):
    """Clips of one folder of video; see :class:`reblurkit.data.VideoFolder` for the kinds of video.

    Training gives crops of clips, for :class:`reblurkit.FlowReblurFinetuneCallback`. Everything else gives frame after
    frame under ``blurry``, with ``sharp`` where it is known, as a network of single frames is measured and used.

    Args:
        root: The folder; for ``"frames"`` also one video file.
        layout: ``"frames"``: folders of frames and video files; or a data set with blurry and sharp frames.
        blur: For data sets, the folder of the blurry frames where it is not the layout's.
        train_split: A split of the data set, or a folder below the root; ``null``: all of it.
        val_split: The same for validation.
        test_split: The same for test and prediction.
        frames: Length of the training clips.
        stride: Frames from one training clip to the next.
        window: Sharp frames in one blurry frame; odd; ``null``: the video is blurry.
        spacing: Sharp frames from one blurry frame to the next; default ``window``.
        gamma: Exponent of the curve that averaging takes into account.
        batch_size: Clips a batch and process.
        crop: Side of the training crops in pixels; ``null``: whole frames.
        augment: Flip and turn the training crops.
        cache: Folder that keeps decoded frames, see :class:`reblurkit.data.cache.ImageCache`; ``true``: a folder
            in the cache of ``torch.hub``; ``null``: files are decoded each time,
            as video files always are.
        num_workers: Processes that read and augment.
        seed: Order, crops and augmentation are a function of (seed, epoch, index).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: str = "frames",
        *,
        blur: str | None = None,
        train_split: str | None = None,
        val_split: str | None = None,
        test_split: str | None = None,
        frames: int = 3,
        stride: int = 1,
        window: int | None = None,
        spacing: int | None = None,
        gamma: float | None = None,
        batch_size: int = 8,
        crop: int | None = 128,
        augment: bool = True,
        cache: CacheFolder = None,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, None)
        self.splits: dict[Stage, str | None] = {"train": train_split, "val": val_split, "test": test_split}
        self._source = {
            "root": root,
            "layout": layout,
            "blur": blur,
            "window": window,
            "spacing": spacing,
            "gamma": gamma,
            "cache": cache,
            "seed": seed,
        }
        self._training = {"frames": frames, "stride": stride, "crop": crop, "augment": augment}

    def dataset(self, stage: Stage) -> VideoFolder:
        """Clips for training, else single frames."""
        clips: dict[str, Any] = self._training if stage == "train" else {"frames": 1}
        source: dict[str, Any] = self._source
        return VideoFolder(**source, split=self.splits[stage], **clips)
