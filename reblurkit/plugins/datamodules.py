"""The data sets of :mod:`reblurkit.data` with loaders for training and evaluation."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from reblurkit.blur.shake import ShakeBlur
from reblurkit.data.demo import DemoPhotos
from reblurkit.data.paired import PairedFolder
from reblurkit.data.sampling import DrawSampler, TrainLoader, seeded
from reblurkit.data.video import VideoFolder
from reblurkit.errors import ArgumentError, ShapeError

Stage = Literal["train", "val", "test"]
PairAugmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | list[Tensor]]


class _PairedModule(L.LightningDataModule, ABC):
    """Loaders of paired data: shuffled, resumable crops for training, whole images one by one elsewhere."""

    def __init__(
        self, batch_size: int, num_workers: int, seed: int, device_augmentation: PairAugmentation | None
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0 or seed < 0:
            raise ArgumentError(
                "`batch_size` must be at least 1, `num_workers` and `seed` at least 0, but are "
                f"{batch_size}, {num_workers} and {seed}"
            )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        if not (device_augmentation is None or callable(device_augmentation)):
            raise ArgumentError(f"`device_augmentation` must be a module or function, but is {device_augmentation!r}")
        self.device_augmentation = device_augmentation
        if device_augmentation is not None:
            # Only then: a hook of the class would keep Lightning from calling the LightningModule's hook of this name.
            self.on_after_batch_transfer = self._augment  # type: ignore[method-assign]
        self._sets: dict[Stage, Dataset[Any]] = {}
        self._loader: TrainLoader | None = None
        self._restored: dict[str, int] | None = None

    @abstractmethod
    def dataset(self, stage: Stage) -> Dataset[Any]:
        """Build the data set of a stage."""

    def setup(self, stage: str) -> None:
        """Build the data sets that a Trainer entry point needs, so that bad data stops it before it starts."""
        needed: dict[str, list[Stage]] = {"fit": ["train", "val"], "validate": ["val"]}
        if getattr(self.trainer, "limit_val_batches", 1) == 0:
            needed["fit"] = ["train"]
        for name in needed.get(stage, ["test"]):
            if name not in self._sets:
                self._sets[name] = self.dataset(name)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of crops; the order and every crop are a function of (seed, epoch, index)."""
        if getattr(self.trainer, "overfit_batches", 0):
            # The flag asks for the same batches in every epoch: crops and augmentation of epoch 0, in order.
            return DataLoader(self._sets["train"], self.batch_size, num_workers=self.num_workers)
        sampler = DrawSampler(
            self._sets["train"],
            seed=self.seed,
            replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        self._loader = TrainLoader(
            self._sets["train"],
            sampler,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        if self._restored is not None:
            self._loader.load_state_dict(self._restored)
            self._restored = None
        return self._loader

    def state_dict(self) -> dict[str, Any]:
        """How far the training loader is.

        Lightning saves a loader's own state as well, but does not restore it if ``configure_optimizers`` has asked for
        ``trainer.estimated_stepping_batches``, which builds the loader before the checkpoint is read.
        """
        return {"loader": self._loader.state_dict()} if self._loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the training loader of a resumed ``fit``; other entry points read checkpoints too."""
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._restored = state_dict.get("loader")

    def _augment(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a training batch on its device, from random numbers of its own.

        They follow from seed, epoch and the names in the batch, whatever was drawn before.
        """
        if self.trainer is None or not self.trainer.training or self.device_augmentation is None:
            return batch
        blurry, sharp = batch["blurry"], batch["sharp"]
        if isinstance(self.device_augmentation, nn.Module):
            self.device_augmentation.to(blurry.device)
        # The batches of `overfit_batches` are those of epoch 0 in every epoch.
        epoch = 0 if getattr(self.trainer, "overfit_batches", 0) else self.trainer.current_epoch
        names = int.from_bytes(hashlib.sha256("\n".join(batch["name"]).encode()).digest())
        with torch.no_grad(), seeded((self.seed, epoch, names), blurry.device):
            augmented = self.device_augmentation(blurry, sharp)
        images = list(augmented) if isinstance(augmented, list | tuple) else [augmented]
        shapes = [(*image.shape[:2], image.shape) if isinstance(image, Tensor) else None for image in images]
        if len(images) != 2 or shapes[0] is None or shapes[0] != shapes[1] or shapes[0][:2] != blurry.shape[:2]:
            came = [str(tuple(image.shape)) if isinstance(image, Tensor) else type(image).__name__ for image in images]
            raise ShapeError(
                "`device_augmentation` must return the blurry and the sharp images of the batch, of one shape, but "
                f'returned {", ".join(came)}; kornia\'s AugmentationSequential takes data_keys=["input", "input"]'
            )
        return {**batch, "blurry": images[0], "sharp": images[1]}

    def val_dataloader(self) -> DataLoader[Any]:
        """Whole images of the validation set, one a batch: sizes may differ."""
        return self._one_by_one("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Whole images of the test set, one a batch."""
        return self._one_by_one("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test set."""
        return self.test_dataloader()

    def _one_by_one(self, stage: Stage) -> DataLoader[Any]:
        return DataLoader(
            self._sets[stage],
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class PairedDataModule(_PairedModule):
    """Training, validation and test pairs of one folder; see :class:`reblurkit.data.PairedFolder` for the layouts.

    Args:
        root: The data set's folder.
        layout: ``"folders"``, ``"gopro"`` or another of them.
        blur: Name of the blurry images' folder, or a pattern such as ``"blur/*"`` or ``"blur_*.png"``.
        sharp: The same for the sharp images.
        list_file: A file that names the pairs to take, such as ``"lists/{split}.txt"``.
        train_split: Split or folder of the training pairs, or ``null`` if the root has no split folders.
        val_split: The same of the validation pairs; not read with ``trainer.limit_val_batches=0``.
        test_split: The same of the test and prediction pairs.
        batch_size: Crops a batch and process.
        crop: Side of the training crops in pixels.
        augment: Augment the training crops: flips, turns, colours, noise.
        device_augmentation: Augments training batches on their device, after ``augment``: called with the blurry and
            the sharp images, each ``(B, 3, crop, crop)``, it returns both, treated alike, as Kornia's
            ``AugmentationSequential`` with ``data_keys=["input", "input"]`` does. What it draws from torch's random
            numbers is a function of (seed, epoch, names in the batch).
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
        batch_size: int = 16,
        crop: int = 256,
        augment: bool = True,
        device_augmentation: PairAugmentation | None = None,
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
        self.crop = crop
        self.augment = augment

    def setup(self, stage: str) -> None:
        """Build the data sets; says so if the training images are validated on."""
        super().setup(stage)
        train, val = (self._sets.get(name) for name in ("train", "val"))
        if isinstance(train, PairedFolder) and isinstance(val, PairedFolder) and train.pairs == val.pairs:
            rank_zero_warn("validation uses the training images; its metrics say nothing about other images")

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
            crop=self.crop if training else None,
            augment=self.augment and training,
            seed=self.seed,
        )


class DemoDataModule(_PairedModule):
    """Photographs bundled with scikit-image, blurred by random camera shake; see :class:`reblurkit.data.DemoPhotos`.

    Validation and test use the same two held-out photos.

    Args:
        batch_size: Crops a batch and process.
        crop: Side of the training crops in pixels.
        crops_per_photo: Training crops of each photo in an epoch.
        blur: The camera shake.
        device_augmentation: Augments training batches on their device; as of :class:`PairedDataModule`.
        num_workers: Processes that blur and augment.
        seed: Order, crops, kernels and augmentation are a function of (seed, epoch, index).
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        crop: int = 96,
        crops_per_photo: int = 64,
        blur: ShakeBlur | None = None,
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


class VideoDataModule(_PairedModule):
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
            "seed": seed,
        }
        self._training = {"frames": frames, "stride": stride, "crop": crop, "augment": augment}

    def dataset(self, stage: Stage) -> VideoFolder:
        """Clips for training, else single frames."""
        clips: dict[str, Any] = self._training if stage == "train" else {"frames": 1}
        source: dict[str, Any] = self._source
        return VideoFolder(**source, split=self.splits[stage], **clips)
