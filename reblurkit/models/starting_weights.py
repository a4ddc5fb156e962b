"""Weights that the networks of a LightningModule start from, and which its checkpoints make superfluous."""

from __future__ import annotations

import os

from torch import Tensor, nn

from reblurkit.core.kept_files import is_restoring, read_or_kept
from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import WeightsError
from reblurkit.models.pretrained import list_pretrained, load_pretrained
from reblurkit.models.weights import load_weights


def start_from(network: nn.Module, path: str | os.PathLike[str] | None, *, trained: bool) -> None:
    """Load the weights that a network in a LightningModule starts from, while it is built.

    Args:
        network: The network.
        path: The file, or a name of :func:`reblurkit.models.list_pretrained`; None: it has its weights already.
        trained: The network is part of the module's state. Where a checkpoint will set that, the file is not read; of
            a network that is not, the weights are kept in checkpoints of the command line, and taken from there.

    Raises:
        WeightsError: If the file is needed and does not fit.
    """
    if path is None or (trained and is_restoring()):
        return
    if path in list_pretrained():
        _start_from_shipped(network, load_pretrained(str(path)).network, f"the network of {str(path)!r}")
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


def start_reblur_net(reblur_net: nn.Module, weights: str | None) -> None:
    """Give a reblurring network of a LightningModule's state what it starts from.

    Args:
        reblur_net: The network.
        weights: A file, or a name of :func:`reblurkit.models.list_pretrained`; None: it has its weights already.

    Raises:
        WeightsError: If the weights are needed and do not fit, or the file cannot be read.
    """
    if weights is None:
        return
    if weights not in list_pretrained():
        try:
            start_from(reblur_net, weights, trained=True)
        except WeightsError as error:
            raise WeightsError(f"{error}{did_you_mean(weights, list_pretrained())}") from error
        return
    _start_from_shipped(reblur_net, load_pretrained(weights).reblur_net, f"the reblurring network of {weights!r}")


def _start_from_shipped(network: nn.Module, shipped: nn.Module, name: str) -> None:
    try:
        network.load_state_dict(shipped.state_dict())
    except RuntimeError as error:
        if is_restoring():  # the checkpoint brings weights that fit, of another version of the package
            return
        raise WeightsError(
            f"{name} does not fit this {type(network).__name__}; the card that load_pretrained() gives names its class "
            "and arguments"
        ) from error
