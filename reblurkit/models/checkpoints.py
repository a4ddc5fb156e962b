"""Checkpoint files: untrusted input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reblurkit.errors import ArgumentError, WeightsError

_WRAPPERS = ("params_ema", "params", "state_dict", "model", "generator", "G", "net")


def load_weights(model: nn.Module, path: str | os.PathLike[str], strict: bool = True) -> None:
    """Load a file of weights into a model, with ``weights_only=True``: code in the file is refused, not run.

    Args:
        model: The network; a refused file leaves it as it was.
        path: A state dict saved by ``torch.save``, or a dict that holds one as ``params_ema``, ``params``,
            ``state_dict``, ``model``, ``generator``, ``G`` or ``net``. A prefix ``module.`` on all keys is taken off.
        strict: Refuse missing and superfluous keys.

    Raises:
        WeightsError: If there is no such file, it holds anything but weights, or they do not fit the model.
    """
    if not Path(path).is_file():
        raise WeightsError(f"no file of weights {path}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise WeightsError(f"{path} cannot be read as a file of nothing but weights") from error
    if isinstance(weights, Mapping):
        weights = next((weights[key] for key in _WRAPPERS if isinstance(weights.get(key), Mapping)), weights)
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise WeightsError(f"{path} holds no state dict, a dict from names to tensors")
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    own = model.state_dict()
    wrong = [f"{key} is missing" for key in own.keys() - weights.keys() if strict]
    wrong += [f"{key} is too many" for key in weights.keys() - own.keys() if strict]
    wrong += [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if weights[key].shape != own[key].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise WeightsError(f"{path} does not fit {type(model).__name__}: {min(wrong)}{more}")
    model.load_state_dict(weights, strict=strict)


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
