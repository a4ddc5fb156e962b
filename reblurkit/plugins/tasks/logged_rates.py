"""The learning rates of a task's own optimizers, in its log."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L


class LoggedRates(L.LightningModule):
    """Logs ``lr-<network>`` in training, as AuxiliaryOptimizer does for its networks."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Log them; an optimizer of several networks goes by the name of the first."""
        for optimizer in self.trainer.optimizers:
            group = optimizer.param_groups[0]
            places = (name for name, parameter in self.named_parameters() if parameter is group["params"][0])
            name = next(places, type(optimizer).__name__).partition(".")[0]  # a strategy may have replaced them
            self.log(f"lr-{name}", group["lr"])
