"""SRN, the scale-recurrent network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_size
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.models.layers import ResBlock, same_conv
from reblurkit.models.tensorflow import from_tensorflow


class SRN(nn.Module):
    """The scale-recurrent network of Tao et al., *Scale-recurrent Network for Deep Image Deblurring* (2018).

    The authors' later colour model without LSTM, which *Clean Images are Hard to Reblur* trains: one encoder-decoder,
    with one set of weights, runs from the coarsest scale to the finest. It sees the blurry image and the estimate of
    the scale before, resized; no gradient passes from a scale to the one before. The first estimate is the blurry
    image. Outputs are images, not residuals. Weights start Xavier-uniform, biases at 0.

    The authors' weights are variables of TensorFlow 1, which pads a strided convolution by one row more below than
    above and resizes without half-pixel centres: load them into ``SRN(tensorflow=True)``. :meth:`official_key` names
    the entry of a variable; its array, convolution ``(h, w, in, out)`` or transposed ``(h, w, out, in)``, becomes
    ``array.transpose(3, 2, 0, 1)``.

    Args:
        widths: Channels at full, half and quarter size.
        scales: Number of scales, each half the size of the next.
        tensorflow: Pad and resize as TensorFlow 1 does, for the authors' weights. Else padding is symmetric and
            resizing has half-pixel centres, as in the rest of PyTorch.

    Shape:
        ``(B, 3, H, W)`` in [0, 1], H and W multiples of ``multiple``, to a list of ``scales`` images from coarse to
        fine, the last ``(B, 3, H, W)``, not clamped.

    Raises:
        ArgumentError: If ``widths`` or ``scales`` make no network.
        ShapeError: If H and W do not divide by ``multiple``.

    Example:
        >>> network = SRN(widths=(4, 6, 8))
        >>> [tuple(image.shape[-2:]) for image in network(torch.rand(1, 3, 32, 48))]
        [(8, 12), (16, 24), (32, 48)]
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), scales: int = 3, tensorflow: bool = False) -> None:
        super().__init__()
        if len(widths) != 3 or min(widths) < 1 or scales < 1:
            raise ArgumentError(
                f"`widths` must be three positive numbers and `scales` at least 1, but are {tuple(widths)} and {scales}"
            )
        full, half, quarter = widths
        self.scales = scales
        self.tensorflow = tensorflow
        self.multiple = 2 ** (scales + 1)
        down = _DownConv if tensorflow else _symmetric_down_conv
        self.enc1 = nn.Sequential(same_conv(6, full, 5), nn.ReLU(inplace=True), *_blocks(full))
        self.enc2 = nn.Sequential(down(full, half), nn.ReLU(inplace=True), *_blocks(half))
        self.enc3 = nn.Sequential(down(half, quarter), nn.ReLU(inplace=True), *_blocks(quarter))
        self.dec3 = nn.Sequential(*_blocks(quarter))
        self.up2 = nn.ConvTranspose2d(quarter, half, 4, stride=2, padding=1)
        self.dec2 = nn.Sequential(*_blocks(half))
        self.up1 = nn.ConvTranspose2d(half, full, 4, stride=2, padding=1)
        self.dec1 = nn.Sequential(*_blocks(full))
        self.leave = same_conv(full, 3, 5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                _zero(module.bias)

    def forward(self, blurry: Tensor) -> list[Tensor]:
        """Return the deblurred images, coarse to fine."""
        check_size(blurry, self.multiple)
        deblurred: list[Tensor] = []
        for scale in range(self.scales):
            resized = self._reduce(blurry, 2 ** (self.scales - 1 - scale))
            estimate = self._double(deblurred[-1].detach()) if deblurred else resized
            deblurred.append(self._deblur(torch.cat([resized, estimate], dim=1)))
        return deblurred

    @staticmethod
    def official_key(variable: str) -> str:
        """The state-dict key of a TensorFlow variable of the authors' checkpoint; other names come back as they are.

        Example:
            >>> SRN.official_key("g_net/enc1_2/conv1/weights"), SRN.official_key("g_net/dec2_4/biases")
            ('enc1.2.body.0.weight', 'up2.bias')
        """
        found = re.fullmatch(r"g_net/(enc|dec)(\d)_(\d)(?:/conv([12]))?/(weight|bias)(?:s|es)(?::0)?", variable)
        if not found:
            return variable
        kind, level, number, convolution, entry = found.groups()
        if kind == "enc":
            layer = f"enc{level}.{0 if number == '1' else number}"
        elif number in "321":  # the decoder's blocks run from number 3 down to 1
            layer = f"dec{level}.{3 - int(number)}"
        else:
            layer = f"up{level}" if number == "4" else "leave"
        block = f".body.{0 if convolution == '1' else 2}" if convolution else ""
        return f"{layer}{block}.{entry}"

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of published files by this network's names, for :func:`reblurkit.models.load_weights`.

        Raises:
            WeightsError: If they are variables of TensorFlow and this network does not pad and resize as it does.
        """
        converted = from_tensorflow(state, self.official_key)
        if converted.keys() != state.keys() and not self.tensorflow:
            raise WeightsError(
                "these are variables of TensorFlow, which pads and resizes in another way: load them into "
                "SRN(tensorflow=True)"
            )
        return converted

    def _deblur(self, images: Tensor) -> Tensor:
        full = self.enc1(images)
        half = self.enc2(full)
        features = self.dec3(self.enc3(half))
        features = self.dec2(torch.relu(self.up2(features)) + half)
        features = self.dec1(torch.relu(self.up1(features)) + full)
        deblurred: Tensor = self.leave(features)
        return deblurred

    def _reduce(self, image: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return image
        if self.tensorflow:
            return image[..., ::factor, ::factor]
        return F.interpolate(image, scale_factor=1 / factor, mode="bilinear")

    def _double(self, image: Tensor) -> Tensor:
        if not self.tensorflow:
            return F.interpolate(image, scale_factor=2, mode="bilinear")
        # Pixel i comes from i / 2: aligned corners, if the last row and column are repeated.
        padded = F.pad(image, (0, 1, 0, 1), mode="replicate")
        height, width = image.shape[-2:]
        doubled = F.interpolate(padded, (2 * height + 1, 2 * width + 1), mode="bilinear", align_corners=True)
        return doubled[..., :-1, :-1]


class _DownConv(nn.Conv2d):
    """A 5x5 convolution of stride 2, padded as TensorFlow's SAME does for even sizes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 5, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(F.pad(features, (1, 2, 1, 2)))


def _symmetric_down_conv(inputs: int, outputs: int) -> nn.Conv2d:
    return same_conv(inputs, outputs, 5, stride=2)


def _blocks(width: int) -> list[ResBlock]:
    return [ResBlock(width, 5) for _ in range(3)]


def _zero(bias: Tensor | None) -> None:
    if bias is not None:
        nn.init.zeros_(bias)
