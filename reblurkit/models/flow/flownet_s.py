"""FlowNetS: optical flow from two stacked images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.numbers import check_positive
from reblurkit.models.flow.flow_network import FlowNetwork

_MEAN = (0.411, 0.432, 0.45)  # RGB, of the images that the released weights were trained on


class FlowNetS(FlowNetwork):
    """FlowNetS of Dosovitskiy et al., *FlowNet: Learning Optical Flow with Convolutional Networks* (ICCV 2015).

    Parameters are named as in the PyTorch version that most people use (``conv3_1.0.weight``, ``predict_flow2.weight``,
    ``upsampled_flow6_to_5.weight``), so its files load. That version returns a fifth to a sixty-fourth of the size
    while it trains; this one returns the finest flow always, enlarged bilinearly from a quarter of the size.

    Args:
        batch_norm: The variant with batch normalisation.
        width: Channels of the first layer, 64 in the paper; the others follow.
        scale: Pixels at full size for one unit of the network's output (``div_flow`` in the files, 20 where absent).
        bgr: The weights expect blue first, as those converted from Caffe do.

    Example:
        >>> source, target = torch.rand(2, 1, 3, 40, 70)
        >>> FlowNetS(width=4)(source, target).shape
        torch.Size([1, 2, 40, 70])
    """

    multiple = 64

    def __init__(self, *, batch_norm: bool = False, width: int = 64, scale: float = 20.0, bgr: bool = False) -> None:
        super().__init__()
        check_positive(scale=scale)
        self.scale = scale
        self.bgr = bgr
        w = width
        self.conv1 = _conv(6, w, 7, 2, batch_norm)
        self.conv2 = _conv(w, 2 * w, 5, 2, batch_norm)
        self.conv3 = _conv(2 * w, 4 * w, 5, 2, batch_norm)
        self.conv3_1 = _conv(4 * w, 4 * w, 3, 1, batch_norm)
        self.conv4 = _conv(4 * w, 8 * w, 3, 2, batch_norm)
        self.conv4_1 = _conv(8 * w, 8 * w, 3, 1, batch_norm)
        self.conv5 = _conv(8 * w, 8 * w, 3, 2, batch_norm)
        self.conv5_1 = _conv(8 * w, 8 * w, 3, 1, batch_norm)
        self.conv6 = _conv(8 * w, 16 * w, 3, 2, batch_norm)
        self.conv6_1 = _conv(16 * w, 16 * w, 3, 1, batch_norm)
        # What a level passes down: its encoder's features, the enlarged features of the level below, their flow.
        level5, level4, level3, level2 = 8 * w + 8 * w + 2, 8 * w + 4 * w + 2, 4 * w + 2 * w + 2, 2 * w + w + 2
        self.deconv5 = _deconv(16 * w, 8 * w)
        self.deconv4 = _deconv(level5, 4 * w)
        self.deconv3 = _deconv(level4, 2 * w)
        self.deconv2 = _deconv(level3, w)
        self.predict_flow6 = _predict(16 * w)
        self.predict_flow5 = _predict(level5)
        self.predict_flow4 = _predict(level4)
        self.predict_flow3 = _predict(level3)
        self.predict_flow2 = _predict(level2)
        self.upsampled_flow6_to_5 = _double()
        self.upsampled_flow5_to_4 = _double()
        self.upsampled_flow4_to_3 = _double()
        self.upsampled_flow3_to_2 = _double()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, 0.1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def estimate(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow between images whose sides divide by 64."""
        mean = source.new_tensor(_MEAN).view(3, 1, 1)
        pair = [image - mean for image in (source, target)]
        images = torch.cat([image.flip(1) for image in pair] if self.bgr else pair, 1)
        conv2 = self.conv2(self.conv1(images))
        conv3 = self.conv3_1(self.conv3(conv2))
        conv4 = self.conv4_1(self.conv4(conv3))
        conv5 = self.conv5_1(self.conv5(conv4))
        features = self.conv6_1(self.conv6(conv5))
        levels = (
            (conv5, self.deconv5, self.predict_flow6, self.upsampled_flow6_to_5),
            (conv4, self.deconv4, self.predict_flow5, self.upsampled_flow5_to_4),
            (conv3, self.deconv3, self.predict_flow4, self.upsampled_flow4_to_3),
            (conv2, self.deconv2, self.predict_flow3, self.upsampled_flow3_to_2),
        )
        for encoded, enlarge, predict, double in levels:
            features = torch.cat((encoded, enlarge(features), double(predict(features))), 1)
        flow = self.scale * self.predict_flow2(features)
        return F.interpolate(flow, scale_factor=4, mode="bilinear", align_corners=False)


def _conv(inputs: int, outputs: int, kernel_size: int, stride: int, batch_norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=not batch_norm)
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return nn.Sequential(conv, *norm, nn.LeakyReLU(0.1, inplace=True))


def _deconv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.1, inplace=True)
    )


def _predict(inputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, 2, 3, padding=1, bias=False)


def _double() -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1, bias=False)
