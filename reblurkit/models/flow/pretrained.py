"""Flow networks with published weights."""

from __future__ import annotations

from torch import nn

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ArgumentError
from reblurkit.models.registry import create_model, list_models
from reblurkit.models.weights import load_weights

# The C_T_V2 weights of torchvision: trained on FlyingChairs and FlyingThings3D, not on footage with terms of its own.
# The digits in the names begin the checksums.
WEIGHTS = {
    "raft-small": RemoteFile("https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth", "01064c6d"),
    "raft-large": RemoteFile("https://download.pytorch.org/models/raft_large_C_T_V2-1bb1363a.pth", "1bb1363a"),
}

PRETRAINED = (*WEIGHTS, "tvl1")


def pretrained_flow(name: str) -> nn.Module:
    """A flow network that works at once: with its published weights, downloaded once, or without any.

    Args:
        name: ``"raft-small"``, ``"raft-large"`` or ``"tvl1"``.

    Raises:
        ArgumentError: If there is no such network, or its weights cannot be had without a hand.
        DownloadError: If the weights are neither there nor can be downloaded.

    Example:
        >>> pretrained_flow("tvl1")
        TVL1()
    """
    if name not in list_models("flow"):
        raise ArgumentError(f"unknown flow network {name!r}; known ones: {', '.join(list_models('flow'))}")
    network = create_model(name)
    if name in WEIGHTS:
        path = WEIGHTS[name].fetch("pass flow= a network with weights of your own, or flow='tvl1', which needs none")
        load_weights(network, path)
    elif [*network.parameters()]:
        raise ArgumentError(
            f"the weights of {name!r} have terms of their own and are not downloaded; get the file, load it with "
            f"reblurkit.models.load_weights(create_model({name!r}), FILE), and pass that network"
        )
    return network
