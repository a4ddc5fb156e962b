"""The learning rates of a task's own optimizers, in its log."""

from __future__ import annotations

from collections import Counter
from typing import Any

import lightning.pytorch as L


class LoggedRates(L.LightningModule):
    """Logs ``lr-<network>`` in training, as AuxiliaryOptimizer does for its networks."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Log them; an optimizer of several networks goes by the name of the first, the next of a network by number."""
        seen: Counter[str] = Counter()
        for optimizer in self.trainer.optimizers:
            group = next((group for group in optimizer.param_groups if group["params"]), None)
            if group is None:  # Lightning's stand-in for no optimizer
                continue
            places = (name for name, parameter in self.named_parameters() if parameter is group["params"][0])
            name = next(places, type(optimizer).__name__).partition(".")[0]  # a strategy may have replaced them
            seen[name] += 1
            self.log(f"lr-{name}-{seen[name]}" if seen[name] > 1 else f"lr-{name}", group["lr"])
