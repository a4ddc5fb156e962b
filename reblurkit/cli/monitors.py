"""Metrics that a training waits for, and nobody logs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import ArgumentError
from reblurkit.plugins.tasks.paired import PairedTask


class KnownMonitors(L.Callback):
    """Refuses a monitor that is not logged before an epoch is lost to it.

    What validation logs is known after Lightning's sanity check, what training logs after the first batch. This
    package's modules log all of it then; of others, which may log later, a name that looks mistyped is warned of.
    Without a sanity check the tasks on pairs are asked what validation will log, unless other callbacks may log, too.
    """

    def __init__(self) -> None:
        self._checked = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the monitors of a validation that has not been tried, and those of one that there is not."""
        if not sum(trainer.num_val_batches):
            _check_without_validation(trainer)
            return
        if trainer.num_sanity_val_steps or not isinstance(pl_module, PairedTask):
            return
        packages = {type(each).__module__.partition(".")[0] for each in trainer.callbacks}  # type: ignore[attr-defined]
        promised = pl_module.validation_names()
        if promised is not None and packages <= {"lightning", "reblurkit"}:
            self._check(trainer, pl_module, "val/", promised)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the monitors of the validation."""
        if trainer.sanity_checking:
            self._check(trainer, pl_module, "val/", set(trainer.callback_metrics))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Check those of the training."""
        if not self._checked:
            self._checked = True
            self._check(trainer, pl_module, "train/", set(trainer.callback_metrics))

    def _check(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str, known: set[str]) -> None:
        logged = {name for name in known if name.startswith(stage)}
        complete = type(pl_module).__module__.startswith("reblurkit.")
        for monitor in sorted(_monitors(trainer) - known):
            near = did_you_mean(monitor, logged)
            if complete and (near or monitor.startswith(stage)):
                raise ArgumentError(f"the monitor {monitor!r} is not logged{near or f'; logged: {_list(logged)}'}")
            if near and not monitor.startswith(("train/", "val/")):
                rank_zero_warn(f"the monitor {monitor!r} has not been logged so far{near}")


def _check_without_validation(trainer: L.Trainer) -> None:
    """Refuse a training of which no checkpoint would be written; of several callbacks some may."""
    checkpoints = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    waiting = [each for each in checkpoints if str(each.monitor).startswith("val/") and not each.save_last]
    if not waiting:
        return
    nothing = "--trainer.limit_val_batches is 0" if trainer.limit_val_batches == 0 else "there are no validation data"
    line = f"a ModelCheckpoint waits for {waiting[0].monitor}, but {nothing}"
    if len(waiting) == len(checkpoints):
        raise ArgumentError(
            f"{line}, so that no checkpoint would be written: leave out its monitor, give it save_last: true, or "
            "validate"
        )
    rank_zero_warn(f"{line}: it writes none, others do")


def _monitors(trainer: L.Trainer) -> set[str]:
    watching: list[Any] = [*trainer.callbacks, *trainer.lr_scheduler_configs]  # type: ignore[attr-defined]
    names = [name for each in watching for name in (getattr(each, "monitor", None), *getattr(each, "monitors", ()))]
    return {name for name in names if isinstance(name, str)}


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
