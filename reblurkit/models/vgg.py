"""Feature maps of VGG networks trained on ImageNet."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ArgumentError, ShapeError, WeightsError
from reblurkit.models.weight_files import read_state

VGG = Literal["vgg19", "vgg16"]

# torchvision's weights; the digits in the names begin the checksums.
VGG_WEIGHTS = {
    "vgg19": RemoteFile(
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    ),
    "vgg16": RemoteFile(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
}
_CONVOLUTIONS = {"vgg19": (2, 2, 4, 4, 4), "vgg16": (2, 2, 3, 3, 3)}  # in each of the five blocks


class VGGFeatures(nn.Module):
    """Feature maps of Simonyan and Zisserman, *Very Deep Convolutional Networks* (2015), by readable names.

    ``conv3_2`` is the second convolution of the third block, ``relu3_2`` the same map after its ReLU, ``pool3`` the
    third block's end. Layers beyond the last one asked for are left out. The weights are frozen; images are taken as
    they come, so whoever calls normalises.

    Args:
        network: ``"vgg19"`` or ``"vgg16"``.
        layers: Names of the maps.
        weights: File of the network's weights as torchvision publishes them. None: downloaded once, about 550 MB.

    Shape:
        ``(B, 3, H, W)`` to a list of ``(B, C, H / 2^k, W / 2^k)`` in the order of ``layers``, where k is the number of
        pools before the layer.

    Raises:
        ArgumentError: If ``network`` or a layer is unknown.
        DownloadError: If the weights are neither there nor can be downloaded.
        WeightsError: If the file is missing, damaged, or of another network.
        ShapeError: If an image is too small for the deepest layer.

    Example:
        >>> VGGFeatures("vgg16", ["relu3_4"])
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: vgg16 has no layer 'relu3_4'; block 3 has conv3_1 to conv3_3, relu3_1 to ...
    """

    def __init__(
        self,
        network: VGG = "vgg19",
        layers: Sequence[str] = ("conv5_4",),
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        check_vgg_layers(network, layers)
        if weights is None:
            weights = VGG_WEIGHTS[network].fetch("pass `weights=` the path of a copy")
        self.network = network
        self.taps = tuple(layers)
        self.stages = _stages(network, layers)
        _load(self.stages, network, Path(weights))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps."""
        smallest = 2 ** sum(isinstance(stage, nn.MaxPool2d) for stage in self.stages)
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < smallest:
            raise ShapeError(
                f"{', '.join(self.taps)} of {self.network} need images (B, 3, H, W) of at least {smallest} x "
                f"{smallest} pixels, but the shape is {tuple(image.shape)}"
            )
        found = {}
        for name, stage in self.stages.named_children():
            image = stage(image)
            if name in self.taps:
                found[name] = image
        return [found[name] for name in self.taps]

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"{self.network!r}, {list(self.taps)}"


def check_vgg_layers(network: str, layers: Sequence[str]) -> None:
    """Raise ArgumentError for a network or a layer that there is not."""
    if network not in _CONVOLUTIONS:
        raise ArgumentError(f"the network must be one of {', '.join(map(repr, get_args(VGG)))}, but is {network!r}")
    if isinstance(layers, str) or not layers:
        raise ArgumentError(f"`layers` must be a list of at least one name, but is {layers!r}")
    for layer in layers:
        if not isinstance(layer, str):
            raise ArgumentError(f"`layers` must be names such as 'conv5_4', but one is {layer!r}")
        if layer not in _names(network):
            block = next((character for character in layer if character in "12345"), "5")
            last = _CONVOLUTIONS[network][int(block) - 1]
            raise ArgumentError(
                f"{network} has no layer {layer!r}; block {block} has conv{block}_1 to conv{block}_{last}, "
                f"relu{block}_1 to relu{block}_{last}, and pool{block}"
            )


def _names(network: str) -> list[str]:
    """The names of all layers, in their order."""
    names = []
    for block, convolutions in enumerate(_CONVOLUTIONS[network], start=1):
        for index in range(1, convolutions + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return names


def _stages(network: str, layers: Sequence[str]) -> nn.Sequential:
    """The layers of torchvision up to the last one asked for, without weights."""
    from torchvision import models  # takes a second to import, and few losses need it

    with torch.device("meta"):
        features = getattr(models, network)(init_weights=False).features
    stages = OrderedDict(zip(_names(network), features, strict=True))
    while next(reversed(stages)) not in layers:
        stages.popitem()
    for stage in stages.values():
        if isinstance(stage, nn.ReLU):
            stage.inplace = False  # it would overwrite the map of the convolution before
    return nn.Sequential(stages)


def _load(stages: nn.Sequential, network: str, path: Path) -> None:
    state = read_state(path)
    index = {name: place for place, name in enumerate(_names(network))}
    try:
        named = {}
        for key in stages.state_dict():
            name, _, kind = key.partition(".")
            named[key] = state[f"features.{index[name]}.{kind}"]
        stages.load_state_dict(named, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = f"misses {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path} must hold torchvision's weights of {network}, but {reason}") from error
