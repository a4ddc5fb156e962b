"""DBN, the network of "Deep Video Deblurring"."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reblurkit.core.checks import check_size
from reblurkit.errors import ArgumentError, ShapeError


class DBN(nn.Module):
    """The network of Su et al., *Deep Video Deblurring for Hand-held Cameras* (2017), also called DVD.

    An encoder-decoder with added skips on frames that are stacked in their order; it adds a correction to the centre
    frame. BatchNorm (epsilon 1e-3) follows every convolution. Weights start as PyTorch's: the authors' recipe is not
    published.

    Three variants are around: the authors' (Lua; the default), deblur-devil's (``sigmoid=False, bias=False``), and
    SimDeblur's (``sigmoid=False, relu_before_skip=True``). Keys are named after the authors' layers;
    :meth:`official_key` names the entry of a key of the two PyTorch versions, whose evaluation modes also clamp.

    Args:
        frames: Frames of a clip, odd.
        width: Channels at full size; 2, 4 and 8 times as many at half, a quarter and an eighth.
        sigmoid: End in a sigmoid of centre frame plus correction, as the authors do.
        bias: Biases in the convolutions.
        relu_before_skip: ReLU between a transposed convolution and the skip that is added.

    Shape:
        Clips ``(B, frames, 3, H, W)`` in [0, 1], H and W multiples of 8, to the centre frame ``(B, 3, H, W)``, not
        clamped.

    Raises:
        ArgumentError: If ``frames`` is even, or ``width`` less than 1.
        ShapeError: If a clip has another number of frames, or H and W do not divide by 8.

    Example:
        >>> tuple(DBN(width=4)(torch.rand(1, 5, 3, 16, 24)).shape)
        (1, 3, 16, 24)
    """

    multiple = 8

    def __init__(
        self,
        frames: int = 5,
        width: int = 64,
        sigmoid: bool = True,
        bias: bool = True,
        relu_before_skip: bool = False,
    ) -> None:
        super().__init__()
        if frames < 1 or frames % 2 == 0 or width < 1:
            raise ArgumentError(f"`frames` must be odd and `width` at least 1, but are {frames} and {width}")
        self.frames = frames
        self.sigmoid = sigmoid
        self.relu_before_skip = relu_before_skip

        def conv(inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
            layer = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=bias)
            return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU(inplace=True))

        def up(inputs: int, outputs: int) -> nn.Sequential:
            layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)
            return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=1e-3))

        half, quarter, eighth = 2 * width, 4 * width, 8 * width
        self.f0 = conv(3 * frames, width, 5)
        self.d1, self.f1, self.f2 = conv(width, width, stride=2), conv(width, half), conv(half, half)
        self.d2 = conv(half, quarter, stride=2)
        self.f3, self.f4, self.f5 = (conv(quarter, quarter) for _ in range(3))
        self.d3 = conv(quarter, eighth, stride=2)
        self.f6, self.f7, self.f8 = (conv(eighth, eighth) for _ in range(3))
        self.u1 = up(eighth, quarter)
        self.f9, self.f10, self.f11 = (conv(quarter, quarter) for _ in range(3))
        self.u2, self.f12, self.f13 = up(quarter, half), conv(half, half), conv(half, width)
        self.u3, self.f14 = up(width, width), conv(width, 3 * frames)
        self.f15 = conv(3 * frames, 3)[:2]

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred centre frame."""
        if blurry.ndim != 5 or blurry.shape[1:3] != (self.frames, 3):
            raise ShapeError(
                f"`blurry` must be clips (B, {self.frames}, 3, H, W), but its shape is {tuple(blurry.shape)}"
            )
        stacked = blurry.flatten(1, 2)
        check_size(stacked, self.multiple, channels=3 * self.frames)
        full = self.f0(stacked)
        half = self.f2(self.f1(self.d1(full)))
        quarter = self.f5(self.f4(self.f3(self.d2(half))))
        features = self.f8(self.f7(self.f6(self.d3(quarter))))
        features = self.f11(self.f10(self.f9(self._add(self.u1(features), quarter))))
        features = self.f13(self.f12(self._add(self.u2(features), half)))
        correction = self.f15(self.f14(self._add(self.u3(features), full)))
        deblurred = blurry[:, self.frames // 2] + correction
        return torch.sigmoid(deblurred) if self.sigmoid else deblurred

    @staticmethod
    def official_key(key: str) -> str:
        """The state-dict key of an entry of deblur-devil's or SimDeblur's files; others come back as they are.

        Example:
            >>> DBN.official_key("dbn_net.f0.0.weight"), DBN.official_key("F2_1.1.bias"), DBN.official_key("U3.0.bias")
            ('f0.0.weight', 'f3.1.bias', 'u3.0.bias')
        """
        layer, dot, entry = key.removeprefix("dbn_net.").partition(".")
        if found := re.fullmatch(r"F([1-6])_([123])", layer):  # numbered by stage there, throughout here
            layer = f"f{(0, 2, 5, 8, 11, 13)[int(found[1]) - 1] + int(found[2])}"
        elif re.fullmatch(r"F0|[DU][123]", layer):
            layer = layer.lower()
        return f"{layer}{dot}{entry}"

    @classmethod
    def convert_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of published files by this network's names, for :func:`reblurkit.models.load_weights`."""
        return {cls.official_key(name): value for name, value in state.items()}

    def _add(self, features: Tensor, skip: Tensor) -> Tensor:
        return torch.relu((torch.relu(features) if self.relu_before_skip else features) + skip)
