"""The generators of DeblurGAN-v2: a feature pyramid on an image classifier."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_size
from reblurkit.errors import ArgumentError

ENCODERS = ("inception", "mobilenet")
RUNNING = (".running_mean", ".running_var", ".num_batches_tracked")
FIRST_BLOCK = {0: "conv_dw", 1: "bn1", 3: "conv_pw", 4: "bn2"}
OTHER_BLOCKS = {0: "conv_pw", 1: "bn1", 3: "conv_dw", 4: "bn2", 6: "conv_pwl", 7: "bn3"}


class DeblurGANv2(nn.Module):
    """A generator of Kupyn et al., *DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better* (2019).

    The encoder is timm's Inception-ResNet-v2 or MobileNetV2, with random weights, without the layers after the last
    that the pyramid uses.

    Every normalisation takes the statistics of the image at hand, in training and in evaluation. So it is in the
    authors' program, which trains with one image at a time and runs the network in training mode, and so images of a
    batch do not depend on each other. There are no running statistics.

    The state dict of a published file (``file["model"]``, without ``module.``) loads as it is:
    ``load_state_dict`` passes it through :meth:`convert_state_dict`.

    Args:
        encoder: ``"inception"`` or ``"mobilenet"``.
        width: Channels of the heads; the pyramid has twice as many. The authors' is 128 for Inception-ResNet-v2 and 64
            for MobileNetV2.

    Attributes:
        multiple: What height and width must divide by: 32. They must be at least 128 (Inception-ResNet-v2) or 64.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, clamped to [0, 1].

    Raises:
        ArgumentError: If the encoder or the width makes no network.
        ShapeError: If height or width does not divide by 32 or is too small.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     network = DeblurGANv2("mobilenet", width=64)
        >>> sum(p.numel() for p in network.parameters())
        2106627
    """

    multiple: int = 32

    def __init__(self, encoder: str = "inception", width: int = 128) -> None:
        super().__init__()
        if encoder not in ENCODERS or width < 2:
            raise ArgumentError(
                f"`encoder` must be one of {', '.join(ENCODERS)} and `width` at least 2, but they are {encoder!r} and "
                f"{width}"
            )
        self.fpn = InceptionPyramid(2 * width) if encoder == "inception" else MobilePyramid(2 * width)
        self.smallest = self.fpn.least
        self.head1 = Head(2 * width, width)
        self.head2 = Head(2 * width, width)
        self.head3 = Head(2 * width, width)
        self.head4 = Head(2 * width, width)
        self.smooth = _conv_norm(4 * width, width)
        self.smooth2 = _conv_norm(width, width // 2)
        self.final = nn.Conv2d(width // 2, 3, 3, padding=1)
        # torch gives this method no types.
        self.register_load_state_dict_pre_hook(self._accept_published_keys)  # type: ignore[no-untyped-call]

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        check_size(blurry, self.multiple, self.smallest)
        half, *maps = self.fpn(2 * blurry - 1)
        heads = (self.head4, self.head3, self.head2, self.head1)
        features = torch.cat(
            [_enlarge(head(level), 8 >> i) for i, (head, level) in enumerate(zip(heads, maps[::-1], strict=True))], 1
        )
        features = self.smooth2(_enlarge(self.smooth(features), 2) + half)
        # The network's own range is [-1, 1]: half of its residual is what an image in [0, 1] changes by.
        deblurred: Tensor = (blurry + 0.5 * self.final(_enlarge(features, 2)).tanh()).clamp(0, 1)
        return deblurred

    @staticmethod
    def convert_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keys of the published files to those of :class:`DeblurGANv2`; its own keys stay as they are.

        A published file holds the whole classifier beside the stages cut from it, and running statistics, of which the
        authors make no use: both are dropped. Layers of MobileNetV2 get timm's names.

        Args:
            state_dict: Weights by name, without ``module.``.

        Example:
            >>> file = dict.fromkeys(["fpn.features.0.0.weight", "fpn.enc1.0.conv.6.weight"], torch.zeros(1))
            >>> list(DeblurGANv2.convert_state_dict(file))
            ['fpn.enc1.0.conv_pwl.weight']
        """
        converted = {}
        for key, value in state_dict.items():
            if key.startswith(("fpn.inception.", "fpn.features.")) or key.endswith(RUNNING):
                continue
            block = re.fullmatch(r"(fpn\.enc\d\.\d)\.conv\.(\d)(\.\w+)", key)
            if block:
                names = FIRST_BLOCK if block[1] == "fpn.enc0.1" else OTHER_BLOCKS
                key = f"{block[1]}.{names[int(block[2])]}{block[3]}"
            converted[key] = value
        return converted

    def _accept_published_keys(
        self, module: nn.Module, state_dict: MutableMapping[str, Tensor], prefix: str, *_: object
    ) -> None:
        own = {key[len(prefix) :]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
        state_dict.update({prefix + key: value for key, value in self.convert_state_dict(own).items()})


class Pyramid(nn.Module):
    """Maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size, each seeing all coarser ones.

    Args:
        width: Channels of the four smaller maps; the largest has half as many.
        encoders: Five stages, each half the size of the one before.
        channels: What each stage gives out.
    """

    least: int

    def __init__(self, width: int, encoders: list[nn.Module], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.enc0, self.enc1, self.enc2, self.enc3, self.enc4 = encoders
        for encoder in encoders:
            _take_image_statistics(encoder)
        self.lateral0 = nn.Conv2d(channels[0], width // 2, 1, bias=False)
        self.lateral1 = nn.Conv2d(channels[1], width, 1, bias=False)
        self.lateral2 = nn.Conv2d(channels[2], width, 1, bias=False)
        self.lateral3 = nn.Conv2d(channels[3], width, 1, bias=False)
        self.lateral4 = nn.Conv2d(channels[4], width, 1, bias=False)
        self.td1 = _conv_norm(width, width)
        self.td2 = _conv_norm(width, width)
        self.td3 = _conv_norm(width, width)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map an image in [-1, 1] to five maps, large to small."""
        laterals = []
        features = image
        for level in range(5):
            features = getattr(self, f"enc{level}")(features)
            laterals.append(self.fit(getattr(self, f"lateral{level}")(features), level))
        fourth = laterals[4]
        third = self.td1(laterals[3] + _enlarge(fourth, 2))
        second = self.td2(laterals[2] + _enlarge(third, 2))
        first = self.td3(laterals[1] + _enlarge(second, 2))
        return [laterals[0], first, second, third, fourth]

    def fit(self, lateral: Tensor, level: int) -> Tensor:
        """Pad a map to its exact share of the image's size."""
        return lateral


class InceptionPyramid(Pyramid):
    """The pyramid on Inception-ResNet-v2, whose unpadded convolutions lose up to three pixels of each map."""

    least = 128
    borders = ((0, 1, 0, 1), (1, 1, 1, 1), (1, 2, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1))

    def __init__(self, width: int) -> None:
        net: Any = timm.create_model("inception_resnet_v2", pretrained=False)
        encoders = [
            net.conv2d_1a,
            nn.Sequential(net.conv2d_2a, net.conv2d_2b, net.maxpool_3a),
            nn.Sequential(net.conv2d_3b, net.conv2d_4a, net.maxpool_5a),
            nn.Sequential(net.mixed_5b, net.repeat, net.mixed_6a),
            nn.Sequential(net.repeat_1, net.mixed_7a),
        ]
        super().__init__(width, encoders, (32, 64, 192, 1088, 2080))

    def fit(self, lateral: Tensor, level: int) -> Tensor:
        """Reflect the map's border."""
        return F.pad(lateral, self.borders[level], mode="reflect")


class MobilePyramid(Pyramid):
    """The pyramid on MobileNetV2."""

    least = 64

    def __init__(self, width: int) -> None:
        net: Any = timm.create_model("mobilenetv2_100", pretrained=False)
        blocks = [nn.Sequential(net.conv_stem, net.bn1), *(block for stage in net.blocks for block in stage)]
        encoders: list[nn.Module] = [
            nn.Sequential(*blocks[start:end]) for start, end in ((0, 2), (2, 4), (4, 7), (7, 11), (11, 16))
        ]
        super().__init__(width, encoders, (16, 24, 32, 64, 160))


class Head(nn.Module):
    """Two convolutions with ReLU on one map of the pyramid."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block0 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.block1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H, W)``."""
        return F.relu(self.block1(F.relu(self.block0(features))))


class ImageNormAct(nn.InstanceNorm2d):
    """What a batch normalisation of timm's, with the activation inside, does in training with one image."""

    def __init__(self, batch_norm: BatchNormAct2d) -> None:
        super().__init__(batch_norm.num_features, eps=batch_norm.eps, affine=True)
        self.act = batch_norm.act

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        output: Tensor = self.act(super().forward(features))
        return output


def _take_image_statistics(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, BatchNormAct2d):
            setattr(module, name, ImageNormAct(child))
        else:
            _take_image_statistics(child)


def _conv_norm(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.ReLU())


def _enlarge(features: Tensor, factor: int) -> Tensor:
    return F.interpolate(features, scale_factor=float(factor), mode="nearest")
