"""A training that ends before anything of it is logged."""

from __future__ import annotations

import math

import lightning.pytorch as L

from reblurkit.cli.messages import say


class LogInterval(L.Callback):
    """Says so where no step of a training is one that the Trainer logs: its log would have no ``train/`` column."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the length of the training with the interval."""
        interval = trainer.log_every_n_steps  # type: ignore[attr-defined]
        optimizers = 1 if pl_module.automatic_optimization else max(1, len(trainer.optimizers))
        end = trainer.estimated_stepping_batches
        if optimizers > 1 and trainer.max_steps != -1:
            end = min(end, trainer.max_steps // optimizers)  # all of them count
        if trainer.fast_dev_run or not trainer.loggers or not interval or math.isinf(end):  # type: ignore[attr-defined]
            return
        start = trainer.global_step // optimizers
        if end // interval <= start // interval:
            say(
                f"no training loss will be logged: the training ends after step {int(end)}, and "
                f"--trainer.log_every_n_steps is {interval}; give a smaller one"
            )
