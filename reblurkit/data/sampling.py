"""Training order as a function of (seed, epoch), and loaders that go on where a stopped run was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from reblurkit.core.calls import preserved_rng

Item = TypeVar("Item", covariant=True)


class Draw(NamedTuple):
    """One access to a training set: which item, in which epoch. Its crop and augmentation follow from both."""

    item: int
    epoch: int = 0

    @classmethod
    def of(cls, index: int | Draw, length: int) -> Draw:
        """The draw that a plain index stands for, of epoch 0, or the draw itself.

        Raises:
            IndexError: If a set of this length has no such item; iteration ends by it.
        """
        draw = index if isinstance(index, Draw) else cls(index)
        if not 0 <= draw.item < length:
            raise IndexError(draw.item)
        return draw


def draw_generator(seed: int, draw: Draw) -> torch.Generator:
    """The random stream of one draw, whichever worker makes it.

    Example:
        >>> a, b = (torch.rand(1, generator=draw_generator(0, Draw(3, epoch))) for epoch in (0, 1))
        >>> bool(a == b)
        False
    """
    return torch.Generator().manual_seed(_mix(seed, *draw))


class DrawnItems(Dataset[Item], ABC):
    """A data set whose items are a function of (seed, epoch, index)."""

    seed: int

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, draw: int | Draw) -> Item:
        """Make an item.

        Args:
            draw: An index, or index and epoch; a plain index is of epoch 0.
        """
        draw = Draw.of(draw, len(self))
        return self._item(draw.item, draw_generator(self.seed, draw))

    @abstractmethod
    def _item(self, index: int, generator: torch.Generator) -> Item:
        """The item of a draw, whose random stream is ``generator``."""


@contextmanager
def seeded(entropy: Iterable[int], device: torch.device) -> Iterator[None]:
    """Code that draws from torch's global random numbers draws from a stream of its own, on the CPU and a device.

    Their states are afterwards as they were before.

    Args:
        entropy: Non-negative integers, of any size, that the stream is a function of.
        device: The device.

    Example:
        >>> with seeded((1, 2), torch.device("cpu")):
        ...     a = torch.rand(1)
        >>> with seeded((1, 2), torch.device("cpu")):
        ...     bool(a == torch.rand(1))
        True
    """
    seed = _mix(*entropy)
    with preserved_rng(device):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            accelerator = torch.get_device_module(device)
            with accelerator.device(device):  # `torch.manual_seed` would reach the other devices too
                accelerator.manual_seed(seed)
        yield


def _mix(*entropy: int) -> int:
    (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return int(state >> 1)


class DrawSampler(DistributedSampler[Any]):
    """Shuffles anew every epoch and yields a :class:`Draw` per item; each process gets its share.

    Lightning calls ``set_epoch`` on it and, as on every ``DistributedSampler``, leaves its sharding alone.

    Args:
        dataset: A data set that is indexed by ``Draw``.
        seed: The order is a function of (seed, epoch).
        replicas: Number of processes.
        rank: This process.
    """

    def __init__(self, dataset: Dataset[Any], *, seed: int = 0, replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=True, seed=seed)
        self.skip = 0
        """Items to leave out at the start of the next iteration."""
        self.ahead: int | None = None
        """Items of an epoch after which iteration goes on with the next epoch; None: it ends after one."""

    def __iter__(self) -> Iterator[Draw]:
        skip, self.skip = self.skip, 0
        epochs = [self.epoch] if self.ahead is None else count(self.epoch)
        draws = chain.from_iterable(islice(self._order(epoch), self.ahead) for epoch in epochs)
        return islice(draws, skip, None)

    def _order(self, epoch: int) -> list[Draw]:
        running, self.epoch = self.epoch, epoch
        draws = [Draw(item, epoch) for item in super().__iter__()]
        self.epoch = running
        return draws


def collate_of(dataset: Dataset[Any]) -> Callable[[Any], Any] | None:
    """How a data set makes a batch of its items: its own method ``collate``; None, torch's way, where it has none."""
    return getattr(dataset, "collate", None)


class TrainLoader(DataLoader[Any]):
    """A DataLoader over a :class:`DrawSampler` whose ``state_dict`` lets Lightning resume in mid-epoch.

    Plain loaders restart the epoch at its first batch when a checkpoint from mid-epoch is resumed. They also wait at
    the start of every epoch; here workers go on with the next epoch while the end of one is trained or validated on.

    Args:
        dataset: A data set that is indexed by ``Draw``.
        sampler: Its sampler.
        batch_size: Items a batch and process; the last, smaller batch of an epoch is dropped unless it is the only
            one.
        num_workers: Processes that load; they live as long as the loader.
        pin_memory: Whether batches are put where a GPU fetches them fastest.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: DrawSampler,
        *,
        batch_size: int,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        batch_size = min(batch_size, len(sampler))
        sampler.ahead = len(sampler) // batch_size * batch_size
        super().__init__(
            dataset,
            batch_size,
            sampler=sampler,
            drop_last=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=collate_of(dataset),
        )
        self._draws = sampler
        self._items_per_batch = batch_size
        self._progress = {"epoch": 0, "batches": 0}
        self._restored = self._progress
        self._stream: Iterator[Any] | None = None
        self._next = (-1, 0)  # epoch and batch that the stream goes on with

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader's iterators have a private type
        # As a generator this runs at the first `next`, when Lightning has set the sampler's epoch. A checkpoint from
        # the end of an epoch, also of one cut short, is followed by another epoch and skips nothing.
        epoch = self._draws.epoch
        start = self._restored["batches"] if self._restored["epoch"] == epoch else 0
        self._restored = {"epoch": -1, "batches": 0}
        # A Trainer may have ended the workers, and with them the stream, in between.
        if self._stream is None or self._next != (epoch, start) or (self.num_workers and self._iterator is None):
            self._draws.skip = start * self._items_per_batch
            self._stream = super().__iter__()
        for batches in range(start + 1, len(self) + 1):
            batch = next(self._stream)
            self._progress = {"epoch": epoch, "batches": batches}
            self._next = (epoch, batches) if batches < len(self) else (epoch + 1, 0)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The running epoch and how many of its batches have been handed out."""
        return self._progress

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Skip these batches if their epoch is iterated next."""
        self._progress = self._restored = dict(state_dict)
