"""Batches without an end, beside those of the Trainer, in an order that a resumed run repeats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from reblurkit.data.sampling import Draw, TrainLoader, draw_generator
from reblurkit.errors import ArgumentError


class CycledLoader:
    """Goes through a loader again and again.

    The loader draws from a random stream of its own, so that training is the same with and without it, and so that
    order, crops and noise follow from (seed, epoch) for every loader that draws from torch. With several processes
    each takes its share: a ``DistributedSampler`` sees to that; beside any other sampler every process reads all
    batches and keeps every n-th.

    Args:
        loader: Any DataLoader.
        seed: The order is a function of (seed, epoch).
        replicas: Number of processes.
        rank: This process.
    """

    def __init__(self, loader: DataLoader[Any], *, seed: int, replicas: int = 1, rank: int = 0) -> None:
        sharded = isinstance(loader.sampler, DistributedSampler)
        self.loader = loader
        self._seed = seed
        self._replicas = 1 if sharded else replicas
        self._rank = 0 if sharded else rank
        self._epoch = -1
        self._batches = 0
        self._iterator: Iterator[Any] = iter(())
        self._random = torch.random.get_rng_state()

    def __next__(self) -> Any:
        """The next batch; of the next epoch when one ends.

        Raises:
            ArgumentError: If an epoch has no batch for this process.
        """
        batch = self._read()
        if batch is None:
            self._start(self._epoch + 1)
            batch = self._read()
        if batch is None:
            raise ArgumentError(
                f"the loader must hold at least one batch for each of {self._replicas} processes, but process "
                f"{self._rank + 1} got none; add data, or make the batches smaller"
            )
        self._batches += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Seed, epoch, and the batches of it that this process has taken."""
        return {"seed": self._seed, "epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where another run was."""
        self._seed, batches = state_dict["seed"], state_dict["batches"]
        if state_dict["epoch"] < 0:  # the other run had not begun
            return
        if isinstance(self.loader, TrainLoader):
            self.loader.load_state_dict({"epoch": state_dict["epoch"], "batches": batches})
            self._start(state_dict["epoch"])
        else:
            self._start(state_dict["epoch"])
            for _ in range(batches):
                self._read()
        self._batches = batches

    def _start(self, epoch: int) -> None:
        self._epoch, self._batches = epoch, 0
        self._random = draw_generator(self._seed, Draw(epoch)).get_state()
        if isinstance(self.loader.sampler, DistributedSampler):
            self.loader.sampler.set_epoch(epoch)
        with self._own_random_stream():
            self._iterator = islice(iter(self.loader), self._rank, None, self._replicas)

    def _read(self) -> Any:
        with self._own_random_stream():
            return next(self._iterator, None)

    @contextmanager
    def _own_random_stream(self) -> Iterator[None]:
        outside = torch.random.get_rng_state()
        torch.random.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.random.get_rng_state()
            torch.random.set_rng_state(outside)
