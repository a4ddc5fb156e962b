"""Weights that the networks of a LightningModule start from, and which its checkpoints make superfluous."""

from __future__ import annotations

import os

from torch import Tensor, nn

from reblurkit.core.kept_files import is_restoring, read_or_kept
from reblurkit.models.weights import load_weights


def start_from(network: nn.Module, path: str | os.PathLike[str] | None, *, trained: bool) -> None:
    """Load the weights that a network in a LightningModule starts from, while it is built.

    Args:
        network: The network.
        path: The file; None: it has its weights already.
        trained: The network is part of the module's state. Where a checkpoint will set that, the file is not read; of
            a network that is not, the weights are kept in checkpoints of the command line, and taken from there.

    Raises:
        WeightsError: If the file is needed and does not fit.
    """
    if path is None or (trained and is_restoring()):
        return
    if trained:
        load_weights(network, path)
        return

    def read() -> dict[str, Tensor]:
        load_weights(network, path)
        return network.state_dict()

    content = read_or_kept(f"{path} for {type(network).__name__}", read)
    if content is not None:
        network.load_state_dict(content)
