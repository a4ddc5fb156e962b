"""What the data modules of images share: their loaders."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from reblurkit.data.sampling import DrawSampler, TrainLoader, collate_of, seeded
from reblurkit.errors import ArgumentError, DatasetNotFoundError, ShapeError

Stage = Literal["train", "val", "test"]
PairAugmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | list[Tensor]]
_KORNIA = 'of Kornia, AugmentationSequential(..., data_keys=["input", "input"]) takes and returns pairs'


class ImageDataModule(L.LightningDataModule, ABC):
    """Base of the data modules: shuffled, resumable crops for training, whole images one by one elsewhere."""

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
        self._predicted: Dataset[Any] | None = None
        self._loader: TrainLoader | None = None
        self._restored: dict[str, int] | None = None

    @abstractmethod
    def dataset(self, stage: Stage) -> Dataset[Any]:
        """Build the data set of a stage."""

    def predict_dataset(self) -> Dataset[Any]:
        """Build what ``predict`` deblurs: the test set."""
        return self.dataset("test")

    def setup(self, stage: str) -> None:
        """Build the data sets that a Trainer entry point needs, so that bad data stops it before it starts."""
        needed: dict[str, list[Stage]] = {"fit": ["train", "val"], "validate": ["val"]}
        if getattr(self.trainer, "limit_val_batches", 1) == 0:
            needed["fit"] = ["train"]
        if stage == "predict":
            self._predicted = self.predict_dataset()
            return
        for name in needed.get(stage, ["test"]):
            if name not in self._sets:
                try:
                    self._sets[name] = self.dataset(name)
                except DatasetNotFoundError as error:
                    if name != "val" or "train" not in self._sets:
                        raise
                    another = "let `val_split` name a split that has some, for instance test, or "
                    raise DatasetNotFoundError(
                        f"there are training images and none to validate on ({str(error).partition(';')[0]}): "
                        f"{another * hasattr(self, 'splits')}do without by `limit_val_batches` 0"
                    ) from error

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of crops; the order and every crop are a function of (seed, epoch, index)."""
        if getattr(self.trainer, "overfit_batches", 0):
            # The flag asks for the same batches in every epoch: crops and augmentation of epoch 0, in order.
            return DataLoader(
                self._sets["train"],
                self.batch_size,
                num_workers=self.num_workers,
                collate_fn=collate_of(self._sets["train"]),
            )
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
            try:
                augmented = self.device_augmentation(blurry, sharp)
            except torch.OutOfMemoryError:
                raise
            except (TypeError, AssertionError, RuntimeError) as error:
                raise ArgumentError(
                    "`device_augmentation` is called with two tensors, the blurry and the sharp images, but failed: "
                    f"{error}; {_KORNIA}"
                ) from error
        images = list(augmented) if isinstance(augmented, list | tuple) else [augmented]
        shapes = [(*image.shape[:2], image.shape) if isinstance(image, Tensor) else None for image in images]
        if len(images) != 2 or shapes[0] is None or shapes[0] != shapes[1] or shapes[0][:2] != blurry.shape[:2]:
            came = [str(tuple(image.shape)) if isinstance(image, Tensor) else type(image).__name__ for image in images]
            raise ShapeError(
                "`device_augmentation` must return the blurry and the sharp images of the batch, of one shape, but "
                f"returned {', '.join(came)}; {_KORNIA}"
            )
        return {**batch, "blurry": images[0], "sharp": images[1]}

    def val_dataloader(self) -> DataLoader[Any]:
        """Whole images of the validation set, one a batch: sizes may differ."""
        return self._one_by_one(self._sets["val"])

    def test_dataloader(self) -> DataLoader[Any]:
        """Whole images of the test set, one a batch."""
        return self._one_by_one(self._sets["test"])

    def predict_dataloader(self) -> DataLoader[Any]:
        """What ``predict`` deblurs, one a batch."""
        assert self._predicted is not None
        return self._one_by_one(self._predicted)

    def _one_by_one(self, data: Dataset[Any]) -> DataLoader[Any]:
        return DataLoader(
            data,
            collate_fn=collate_of(data),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
