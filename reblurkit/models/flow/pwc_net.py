"""PWC-Net: pyramid, warping, cost volume."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.errors import ArgumentError
from reblurkit.models.flow.flow_network import FlowNetwork

_RANGE = 4  # pixels a level may correct in each direction
_SCALE = 20.0  # pixels at full size for one unit of the network's output
_LEVELS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")  # as pytorch-pwc counts


class PWCNet(FlowNetwork):
    """PWC-Net of Sun et al., *CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume* (CVPR 2018).

    The variant with dense connections and dilated context that its authors released as ``pwc_net``; parameters are
    named as theirs (``conv1aa.0.weight``, ``predict_flow6.weight``, ``dc_conv7.weight``), so their files load, through
    ``load_weights`` also under the names that pytorch-pwc gave them (``moduleExtractor.moduleOne.0.weight``). Inside,
    images are blue first, and the flow is enlarged bilinearly from a quarter of the size. Warping samples with aligned
    corners, as the PyTorch of the authors' time did, and the cost volume is a mean over channels, in plain torch.

    Args:
        widths: Channels of the six levels of the pyramid.

    Raises:
        ArgumentError: If there are not six widths.

    Example:
        >>> source, target = torch.rand(2, 1, 3, 40, 70)
        >>> PWCNet((4, 4, 8, 8, 8, 8))(source, target).shape
        torch.Size([1, 2, 40, 70])
    """

    multiple = 64

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96, 128, 196)) -> None:
        super().__init__()
        if len(widths) != 6 or min(widths) < 1:
            raise ArgumentError(f"`widths` must be six positive numbers, but are {tuple(widths)}")
        for level, (inputs, outputs) in enumerate(pairwise((3, *widths)), 1):
            # On the coarsest level the released files name the strided layer "aa".
            first, second = ("aa", "a") if level == 6 else ("a", "aa")
            self.add_module(f"conv{level}{first}", _conv(inputs, outputs, stride=2))
            self.add_module(f"conv{level}{second}", _conv(outputs, outputs))
            self.add_module(f"conv{level}b", _conv(outputs, outputs))
        dense = (128, 128, 96, 64, 32)
        for level in (6, 5, 4, 3, 2):
            channels = (2 * _RANGE + 1) ** 2
            if level < 6:
                channels += widths[level - 1] + 4  # own features; flow and features of the level below, 2 each
            for index, outputs in enumerate(dense):
                self.add_module(f"conv{level}_{index}", _conv(channels, outputs))
                channels += outputs
            self.add_module(f"predict_flow{level}", nn.Conv2d(channels, 2, 3, padding=1))
            # The files hold an enlargement of the finest flow too, which is used for nothing.
            self.add_module(f"deconv{level}", nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1))
            if level > 2:
                self.add_module(f"upfeat{level}", nn.ConvTranspose2d(channels, 2, 4, stride=2, padding=1))
        context = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))
        for index, (outputs, dilation) in enumerate(context, 1):
            self.add_module(f"dc_conv{index}", _conv(channels, outputs, dilation=dilation))
            channels = outputs
        self.dc_conv7 = nn.Conv2d(channels, 2, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @classmethod
    def convert_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of published files by this network's names, for :func:`reblurkit.models.load_weights`."""
        converted = {_official_key(name): value for name, value in state.items()}
        if converted.keys() != state.keys():
            # pytorch-pwc leaves out the one layer that is used for nothing
            unused = {"deconv2.weight": torch.zeros(2, 2, 4, 4), "deconv2.bias": torch.zeros(2)}
            converted = unused | converted
        return converted

    def estimate(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow between images whose sides divide by 64."""
        images = torch.cat((source, target)).flip(1)
        pyramid: list[tuple[Tensor, Tensor]] = []
        for level in range(1, 7):
            for part in ("aa", "a", "b") if level == 6 else ("a", "aa", "b"):
                images = self._layer(f"conv{level}{part}")(images)
            ours, theirs = images.chunk(2)
            pyramid.append((ours, theirs))

        features = self._dense(6, F.leaky_relu(correlation(*pyramid[5], _RANGE), 0.1))
        flow = self._layer("predict_flow6")(features)
        for level in (5, 4, 3, 2):
            flow = self._layer(f"deconv{level + 1}")(flow)
            below = self._layer(f"upfeat{level + 1}")(features)
            ours, theirs = pyramid[level - 1]
            cost = F.leaky_relu(correlation(ours, warp(theirs, _SCALE / 2**level * flow), _RANGE), 0.1)
            features = self._dense(level, torch.cat((cost, ours, flow, below), 1))
            flow = self._layer(f"predict_flow{level}")(features)
        for index in range(1, 7):
            features = self._layer(f"dc_conv{index}")(features)
        flow = _SCALE * (flow + self.dc_conv7(features))
        return F.interpolate(flow, scale_factor=4, mode="bilinear", align_corners=False)

    def _dense(self, level: int, features: Tensor) -> Tensor:
        """Five layers, each of which sees the outputs of all before it."""
        for index in range(5):
            features = torch.cat((self._layer(f"conv{level}_{index}")(features), features), 1)
        return features

    def _layer(self, name: str) -> nn.Module:
        return self.get_submodule(name)


def correlation(source: Tensor, target: Tensor, reach: int) -> Tensor:
    """Similarity of each pixel's features with those of the target around it.

    Args:
        source: ``(B, C, H, W)``.
        target: ``(B, C, H, W)``, zero beyond its border.
        reach: Largest displacement in pixels.

    Returns:
        ``(B, (2 * reach + 1)**2, H, W)``: channel ``(dy + reach) * (2 * reach + 1) + dx + reach`` is the mean over
        channels of ``source(p) * target(p + (dx, dy))``.
    """
    height, width = source.shape[-2:]
    padded = F.pad(target, (reach, reach, reach, reach))
    steps = range(2 * reach + 1)
    return torch.stack([(source * padded[..., y : y + height, x : x + width]).mean(1) for y in steps for x in steps], 1)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image(p + flow(p))``, bilinear, and zero wherever a part of it would come from beyond the border."""
    height, width = image.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype).view(-1, 1) + flow[:, 1]
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), -1)
    warped = F.grid_sample(image, grid, align_corners=True)
    inside = F.grid_sample(torch.ones_like(image[:, :1]), grid.detach(), align_corners=True) >= 0.999
    return warped * inside


def _official_key(key: str) -> str:
    """The authors' name of a tensor that pytorch-pwc names; any other name stays."""
    words = re.sub(r"\b(module|net)(?=[A-Z])", "", key).split(".")
    match words:
        case ["Extractor", level, layer, entry] if level in _LEVELS:
            number = _LEVELS.index(level) + 1
            part = (("aa", "a", "b") if number == 6 else ("a", "aa", "b"))[int(layer) // 2]
            return f"conv{number}{part}.0.{entry}"
        case ["Refiner", "Main", layer, entry]:
            number = int(layer) // 2 + 1
            return f"dc_conv{number}.{entry}" if number == 7 else f"dc_conv{number}.0.{entry}"
        case [level, ("Upflow" | "Upfeat") as layer, entry] if level in _LEVELS:  # from the level below
            name = {"Upflow": "deconv", "Upfeat": "upfeat"}[layer]
            return f"{name}{_LEVELS.index(level) + 2}.{entry}"
        case [level, layer, "0", entry] if level in _LEVELS and layer in _LEVELS:
            number = _LEVELS.index(level) + 1
            if layer == "Six":
                return f"predict_flow{number}.{entry}"
            return f"conv{number}_{_LEVELS.index(layer)}.0.{entry}"
    return key


def _conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation), nn.LeakyReLU(0.1))
