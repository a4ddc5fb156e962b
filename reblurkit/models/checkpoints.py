"""Checkpoint files: untrusted input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reblurkit.errors import ArgumentError


def read_lightning_checkpoint(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read a Lightning checkpoint onto the CPU, with ``weights_only=True``: code in the file is refused, not run.

    Raises:
        ArgumentError: If there is no such file, or it is no Lightning checkpoint of nothing but weights.
    """
    if not Path(path).is_file():
        raise ArgumentError(f"no checkpoint file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise ArgumentError(f"{path} cannot be read as a checkpoint of nothing but weights") from error
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise ArgumentError(f"{path} is no Lightning checkpoint: it has no 'state_dict'")
    return checkpoint


def load_weights(model: nn.Module, path: str | os.PathLike[str], strict: bool = True) -> None:
    """Placeholder until the real loader is merged."""
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=strict)
