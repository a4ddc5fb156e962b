"""Weights that the networks of a LightningModule start from, and which its checkpoints make superfluous."""

from __future__ import annotations

import os
from typing import Literal

from torch import Tensor, nn

from reblurkit.core.kept_files import is_restoring, read_or_kept
from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import WeightsError
from reblurkit.models.pretrained import list_pretrained, load_pretrained
from reblurkit.models.weights import load_weights

_PARTS = {"network": "network", "reblur_net": "reblurring network"}


def start_from(
    network: nn.Module,
    path: str | os.PathLike[str] | None,
    *,
    trained: bool,
    part: Literal["network", "reblur_net"] = "network",
) -> None:
    """Load the weights that a network in a LightningModule starts from, while it is built.

    Args:
        network: The network.
        path: The file, or a name of :func:`reblurkit.models.list_pretrained`; None: it has its weights already.
        trained: The network is part of the module's state. Where a checkpoint will set that, the file is not read; of
            a network that is not, the weights are kept in checkpoints of the command line, and taken from there.
        part: Which network of those that come with the package a name stands for.

    Raises:
        WeightsError: If the weights are needed and do not fit.
    """
    if path is None or (trained and is_restoring()):
        return
    if path in list_pretrained():
        pair = load_pretrained(str(path))
        try:
            network.load_state_dict(getattr(pair, part).state_dict())
        except RuntimeError as error:
            kind, built = type(getattr(pair, part)).__name__, pair.card[part]["arguments"]
            raise WeightsError(
                f"the {_PARTS[part]} of {str(path)!r} does not fit this {type(network).__name__}; it is a {kind} with "
                + ", ".join(f"{name}={value}" for name, value in built.items())
            ) from error
        return
    if trained:
        try:
            load_weights(network, path)
        except WeightsError as error:
            raise WeightsError(f"{error}{did_you_mean(str(path), list_pretrained())}") from error
        return

    def read() -> dict[str, Tensor]:
        load_weights(network, path)
        return network.state_dict()

    content = read_or_kept(f"{path} for {type(network).__name__}", read)
    if content is not None:
        network.load_state_dict(content)
