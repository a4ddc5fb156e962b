"""Checkpoint files: untrusted input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reblurkit.errors import ArgumentError, WeightsError


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


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a file that holds a plain dictionary of tensors, onto the CPU, with ``weights_only=True``.

    Raises:
        WeightsError: If the file is missing or damaged, or holds something else.
    """
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        raise WeightsError(f"{path} cannot be read as a file of weights: {error}".splitlines()[0]) from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise WeightsError(f"{path} must hold a dictionary of tensors, but holds {type(state).__name__}")
    return state
