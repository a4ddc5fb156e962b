"""Checkpoints that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem

from reblurkit.core.tensor_files import save_tensors


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their target, onto the disk, and then gives them their name.

    Lightning itself writes them to the temporary folder: where that lies on another file system the last step is a
    copy, and a process that is killed in it leaves a torn checkpoint, one that is killed before it a lost file. The
    command line uses this class; with a Trainer of one's own it is ``Trainer(plugins=WholeCheckpointIO())``. Addresses
    such as ``s3://`` are left to Lightning, and so are strategies with checkpoints of their own (FSDP, DeepSpeed).

    Raises:
        WeightsError: If a checkpoint cannot be written, on a full disk for instance; an earlier one of that name is
            then still there.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     WholeCheckpointIO().save_checkpoint({"state_dict": {}}, f"{folder}/last.ckpt")
        ...     torch.load(f"{folder}/last.ckpt", weights_only=True)
        {'state_dict': {}}
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint."""
        local = local_path(path)
        if local is None or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            save_tensors(checkpoint, local)


def use_whole_checkpoints(trainer: L.Trainer, by: WholeCheckpointIO | None = None) -> None:
    """Let a Trainer write whole checkpoints, unless another way to write them was chosen."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = by or WholeCheckpointIO()


def local_path(path: Any) -> Path | None:
    """A path of this machine's files; None of another address."""
    files = get_filesystem(path)
    return Path(files._strip_protocol(str(path))) if "local" in files.protocol else None
