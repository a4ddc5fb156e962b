"""Stop at the first loss that is not a number, before it reaches a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from reblurkit.errors import NonFiniteLossError


class FiniteLoss(L.Callback):
    """Stops training at a NaN or infinite loss and names the files of the batch.

    The check comes before the backward pass, so weights, optimizer states and the last checkpoint stay good. Works
    with automatic and manual optimization.

    Raises:
        NonFiniteLossError: From the training step whose loss is not finite.
    """

    def __init__(self) -> None:
        self._names: list[str] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch's names."""
        names = batch.get("name", []) if isinstance(batch, Mapping) else []
        self._names = [names] if isinstance(names, str) else [str(name) for name in names]

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Check the loss."""
        if not torch.isfinite(loss).all():
            files = ", ".join(self._names) or "unnamed"
            raise NonFiniteLossError(
                f"the loss is {loss.detach().float().mean().item()} in epoch {trainer.current_epoch}, step "
                f"{trainer.global_step}; files of the batch: {files}; look at these images, or lower the learning rate"
            )
