"""The unlabelled clips of fine-tuning, from wherever the user has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from reblurkit.errors import ArgumentError, ShapeError


def clip_loader(data: DataLoader[Any] | Dataset[Any] | L.LightningDataModule, trainer: L.Trainer) -> DataLoader[Any]:
    """The loader of unlabelled clips.

    Args:
        data: The loader, or a data module that has one for training, or a data set, which is then shuffled and read in
            batches as large as the labelled ones.
        trainer: The Trainer whose labelled data are open.

    Raises:
        ArgumentError: If the data are something else, are empty, or the size of a batch is unknown.
    """
    if isinstance(data, L.LightningDataModule):
        data.trainer = trainer
        data.prepare_data()
        data.setup("fit")
        data = data.train_dataloader()
    if isinstance(data, DataLoader):
        return data
    if not isinstance(data, Dataset):
        raise ArgumentError(
            "`unlabelled` must be a DataLoader, a Dataset or a LightningDataModule with one training loader, but "
            f"is {type(data).__name__}"
        )
    batch_size = getattr(trainer.train_dataloader, "batch_size", None)
    if batch_size is None:
        raise ArgumentError(
            "`unlabelled` is a Dataset, to be read in batches as large as the labelled ones, but your training "
            "loader has no `batch_size`; pass a DataLoader"
        )
    if isinstance(data, IterableDataset):
        return DataLoader(data, batch_size)
    if not len(data):  # type: ignore[arg-type]  # all others have one
        raise ArgumentError("`unlabelled` must hold at least one clip, but is empty")
    return DataLoader(data, batch_size, shuffle=True)


def first_clips(loader: DataLoader[Any], number: int) -> Tensor:
    """The first clips of a loader's data set, ``(number, T, 3, H, W)``.

    Raises:
        ArgumentError: If the data set cannot be indexed.
    """
    data = loader.dataset
    if not hasattr(data, "__getitem__") or isinstance(data, IterableDataset):
        raise ArgumentError(f"the unlabelled data set {type(data).__name__} has no clip by index to draw")
    number = min(number, len(data))  # type: ignore[arg-type]
    collate = loader.collate_fn or default_collate
    return clips_of(collate([data[index] for index in range(number)]))


def clips_of(batch: Any) -> Tensor:
    """The clips of a batch, ``(B, T, 3, H, W)``.

    Raises:
        ShapeError: If the batch is something else.
        ArgumentError: If the values are whole numbers.
    """
    clips = batch.get("frames") if isinstance(batch, Mapping) else batch
    if isinstance(clips, list | tuple) and len(clips) == 1:  # of a TensorDataset
        (clips,) = clips
    if not isinstance(clips, Tensor) or clips.ndim != 5 or clips.shape[2] != 3:
        came = tuple(clips.shape) if isinstance(clips, Tensor) else type(clips).__name__
        raise ShapeError(
            "an unlabelled batch must be clips (B, T, 3, H, W), or a dict with them under 'frames', but came as "
            + (f"{sorted(batch)}" if isinstance(batch, Mapping) and clips is None else f"{came}")
        )
    if not clips.is_floating_point():
        raise ArgumentError(f"clips must hold floating point values in [0, 1], but are {clips.dtype}")
    return clips
