"""Checkpoints of compiled networks into modules whose networks are not, and the reverse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as L

from reblurkit.models.weight_files import renamed_for

if TYPE_CHECKING:
    _Module = L.LightningModule
else:
    _Module = object  # a mixin: the module brings LightningModule


class OwnNames(_Module):
    """Loads the weights of a checkpoint by a module's own names: ``torch.compile`` adds a part to them."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rename what the checkpoint holds."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] = renamed_for(self.state_dict(), checkpoint["state_dict"])
