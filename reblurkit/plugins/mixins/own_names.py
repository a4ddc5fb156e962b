"""How the modules of this package are written to checkpoints and loaded from them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

import lightning.pytorch as L

from reblurkit.core.finite import first_broken_weight
from reblurkit.core.numbers import without_numpy
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.models.weight_files import renamed_for
from reblurkit.models.weights import read_lightning_checkpoint
from reblurkit.plugins.found_config import misfit

if TYPE_CHECKING:
    _Module = L.LightningModule
else:
    _Module = object  # a mixin: the module brings LightningModule


class OwnNames(_Module):
    """Loads the weights of a checkpoint by a module's own names: ``torch.compile`` adds a part to them.

    Of a checkpoint nothing but weights is used. Its hyper-parameters could name any class or function, and Lightning
    would build what they name.
    """

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # the arguments come from the caller, never from the file
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **arguments: Any,
    ) -> Self:
        """A module with a checkpoint's weights.

        Args:
            checkpoint_path: The file.
            map_location: The device that the module goes to; default: the CPU.
            strict: Whether names of the file and the module must be the same; default: as the module says.
            weights_only: Code in the file is refused, always; False, which Lightning knows, is an error.
            **arguments: The arguments of the class; what the checkpoint says of them is not read.

        Raises:
            ArgumentError: If code in the file is wanted.
            WeightsError: If the file cannot be read, its weights do not fit, or are NaN or infinite.
            TypeError: If an argument of the class is missing.
        """
        if weights_only is False:
            raise ArgumentError("`weights_only` must be True: checkpoints are untrusted files, whose code is never run")
        checkpoint = dict(read_lightning_checkpoint(checkpoint_path))
        try:
            module = cls(**arguments)
        except TypeError as error:
            if "missing" in str(error):
                error.add_note(
                    "Of a checkpoint only weights are read: give the arguments that the module was made with."
                )
            raise
        module.on_load_checkpoint(checkpoint)
        try:
            module.load_state_dict(checkpoint["state_dict"], module.strict_loading if strict is None else strict)
        except RuntimeError as error:
            parts = {name.partition(".")[0] for name in checkpoint["state_dict"]}
            also = sorted(part for part in parts if not hasattr(module, part))
            without = f"; it also holds {' and '.join(also)}: was it made with more networks?" if also else ""
            raise WeightsError(f"{checkpoint_path} does not fit {cls.__name__}: {misfit(error)}{without}") from error
        if broken := first_broken_weight(module):
            raise WeightsError(f"{checkpoint_path} holds NaN or infinite weights, the first in {broken}")
        return module if map_location is None else module.to(map_location)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write a learning rate that NumPy has computed as a number: a file with another object is refused, read."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {key: without_numpy(value) for key, value in checkpoint.items() if key != "state_dict"}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rename what the checkpoint holds."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] = renamed_for(self.state_dict(), checkpoint["state_dict"])
