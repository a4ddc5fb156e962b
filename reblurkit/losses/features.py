"""Features of any network, by the names of its layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from reblurkit.core.calls import finest_scale
from reblurkit.core.numbers import shown
from reblurkit.errors import ArgumentError
from reblurkit.models.starting_weights import start_from


class LayerFeatures(nn.Module):
    """What layers of a network put out, as a list of feature maps: ``features`` of the perceptual losses.

    A deblurring network that is at hand anyway makes features without a download, where VGG's weights take 550 MB.
    Not from a paper.

    Args:
        network: Any network of images.
        layers: Dotted names of layers, as in ``network.named_modules()``.
        weights: File of the network's weights, see :func:`reblurkit.models.weights.load_weights`. None: it has
            them already.

    Shape:
        What ``network`` takes, to a list of one map for each layer in the order of ``layers``. Of a layer that runs
        several times the last output, of one that returns several tensors the last.

    Raises:
        ArgumentError: If a layer does not exist, or takes no part in the forward pass.
        WeightsError: If the file does not fit the network.

    Example:
        >>> import torch
        >>> from reblurkit.models import UNet
        >>> network = UNet(blocks=1, widths=(4, 6, 8))
        >>> [tuple(each.shape) for each in LayerFeatures(network, ["down1", "blocks"])(torch.zeros(1, 3, 16, 16))]
        [(1, 6, 8, 8), (1, 8, 4, 4)]
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[str], weights: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ArgumentError(f"`network` must be an nn.Module, but is {shown(network)}")
        names = [name for name, _ in network.named_modules() if name]
        unknown = [layer for layer in layers if layer not in names]
        if unknown or not layers:
            raise ArgumentError(
                f"`layers` must name layers of {type(network).__name__}, but are {list(layers)}; it has: "
                f"{', '.join(names[:30])}{', ...' if len(names) > 30 else ''}"
            )
        start_from(network, weights, trained=False)
        self.network = network
        self.layers = list(layers)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the layers' outputs."""
        maps: dict[str, Tensor] = {}
        handles = [
            self.network.get_submodule(layer).register_forward_hook(partial(_keep, maps, layer))
            for layer in self.layers
        ]
        try:
            self.network(image)
        finally:
            for handle in handles:
                handle.remove()
        if silent := [layer for layer in self.layers if layer not in maps]:
            raise ArgumentError(f"layers {silent} of {type(self.network).__name__} take no part in its forward pass")
        return [maps[layer] for layer in self.layers]


def _keep(maps: dict[str, Tensor], name: str, layer: nn.Module, inputs: object, output: Tensor) -> None:
    maps[name] = finest_scale(output).clone()  # the next layer may change it in place, as many a ReLU does
