"""Features of any network by the names of its layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reblurkit.errors import ArgumentError
from reblurkit.losses import LayerFeatures, MultiScalePerceptualLoss
from reblurkit.models import UNet
from reblurkit.models.deblur.mimo_unet import MIMOUNet


def test_layers_put_out_what_they_put_out():
    network, image = UNet(2, (4, 6, 8)), torch.rand(1, 3, 16, 20)
    entered = network.enter(image)
    blocks, enter = LayerFeatures(network, ["blocks", "enter"])(image)
    torch.testing.assert_close(enter, entered, rtol=0, atol=0)
    assert blocks.shape == (1, 8, 4, 5)
    assert not network.enter._forward_hooks, "nothing stays on the network"


def test_a_later_change_in_place_is_not_seen():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
    image = torch.rand(1, 3, 8, 8)
    (before,) = LayerFeatures(network, ["0"])(image)
    torch.testing.assert_close(before, network[0](image), rtol=0, atol=0)
    assert (before < 0).any()


def test_as_features_of_the_reconstruction_loss():
    network, (output, image) = UNet(1, (4, 6, 8)), torch.rand(2, 1, 3, 16, 16)
    output.requires_grad_()
    loss = MultiScalePerceptualLoss(LayerFeatures(network, ["down1", "blocks"]), reduction="sum")([output], image)
    taps = LayerFeatures(network, ["down1", "blocks"])
    expected = sum((one - other).abs().mean() for one, other in zip(taps(output), taps(image), strict=True))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert output.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_several_scales_and_weights_from_a_file(tmp_path):
    network = MIMOUNet(1, 8)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    image = torch.rand(1, 3, 16, 16)
    (full,) = LayerFeatures(MIMOUNet(1, 8), ["Decoder.2"], weights=tmp_path / "weights.pth")(image)
    torch.testing.assert_close(network.feat_extract[5](full) + image, network(image)[-1])


def test_bad_layers():
    network = UNet(1, (4, 6, 8))
    with pytest.raises(ArgumentError, match=r"it has: enter, down1"):
        LayerFeatures(network, ["encoder"])
    with pytest.raises(ArgumentError, match="must name layers"):
        LayerFeatures(network, [])
    network.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ArgumentError, match="take no part"):
        LayerFeatures(network, ["unused"])(torch.rand(1, 3, 8, 8))
