"""Cleaning up before anything else can go wrong."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as L


class FirstToHear(L.Callback):
    """Is told of an exception before any other callback of a run, so that none of these can keep it from cleaning up.

    Lightning tells one callback after the other, and stops where one raises an error of its own.

    Args:
        clean_up: What to do; may be called twice.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        self._clean_up = clean_up

    def begin(self, trainer: L.Trainer) -> None:
        """Listen. Not in ``setup``, where others may still append to the list of callbacks."""
        self.end(trainer)
        # a new list: Lightning is going through the present one
        trainer.callbacks = [self, *trainer.callbacks]  # type: ignore[attr-defined]  # set where mypy does not look

    def end(self, trainer: L.Trainer) -> None:
        """Listen no more."""
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        trainer.callbacks = [callback for callback in callbacks if callback is not self]  # type: ignore[attr-defined]

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Clean up."""
        self.end(trainer)
        self._clean_up()
