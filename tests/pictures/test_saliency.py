from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from reblurkit.errors import ArgumentError
from reblurkit.models import UNet, create_model
from reblurkit.pictures.saliency import guided_saliency, saliency_colours, saliency_figure


class Functional(nn.Module):
    """The same network with a layer, a function, a method, and in place."""

    def __init__(self, relus):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in relus)
        self.relus = relus
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, image):
        features = image.movedim(1, -1)
        for layer, relu in zip(self.layers, self.relus, strict=True):
            features = relu(layer(features))
        return self.norm(self.dropout(features.movedim(-1, 1)))


def by_hand(network, image):
    """Forward and backward written out, in evaluation mode: at every ReLU only what is positive passes back."""
    values, inputs = image.movedim(1, -1), []
    for layer in network.layers:
        inputs.append(layer(values))
        values = inputs[-1].clamp(min=0)
    scale = network.norm.weight / (network.norm.running_var + network.norm.eps).sqrt()
    gradient = scale.expand_as(values)
    for layer, before in zip(reversed(network.layers), reversed(inputs), strict=True):
        gradient = gradient.clamp(min=0) * (before > 0) @ layer.weight
    return gradient.movedim(-1, 1).detach()


def test_equals_guided_back_propagation_by_hand_whatever_way_relu_is_called():
    ways = [nn.ReLU(), nn.ReLU(inplace=True), torch.relu, torch.Tensor.relu, torch.relu_, nn.functional.relu]
    network = Functional(ways)
    for layer in network.layers:
        nn.init.normal_(layer.weight, 0.2)
    nn.init.normal_(network.norm.weight)
    image = torch.rand(2, 3, 4, 5)
    before = copy.deepcopy(network.state_dict())
    saliency = guided_saliency(network, image)
    torch.testing.assert_close(saliency, by_hand(network, image))
    image.requires_grad_()
    network.eval()(image).sum().backward()
    assert not torch.allclose(saliency, image.grad), "plain gradients come back afterwards, and are others"
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_network_is_left_as_it_was():
    network = UNet(blocks=1, widths=(4, 4, 4))
    network.blocks.eval()
    image = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        guided_saliency(network, image)
    assert network.training
    assert not network.blocks.training
    assert all(parameter.grad is None for parameter in network.parameters())
    hooks = [module._forward_hooks or module._backward_hooks for module in network.modules()]
    assert not any(hooks)


def test_a_patch_depends_on_its_surroundings_only():
    saliency = guided_saliency(UNet(blocks=0, widths=(4, 4, 4)), torch.rand(1, 3, 96, 96), (44, 44, 4, 4))
    reached = saliency.abs().sum((0, 1)).nonzero()
    assert reached.min() > 20
    assert reached.max() < 76
    assert saliency[..., 44:48, 44:48].abs().sum() > 0


def test_frames_of_a_clip_count_apart():
    network = create_model("dbn", width=4)
    clip = torch.rand(1, 5, 3, 16, 16)
    saliency = guided_saliency(network, clip)
    assert saliency.shape == clip.shape
    assert all(saliency[:, t].abs().sum() > 0 for t in range(5))
    figure = saliency_figure({"network": network}, clip)
    assert figure.height > 5 * 360
    colours = saliency_colours(torch.tensor([0.5, -2.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2), scale=3)
    assert colours[0, :, 0].T.tolist() == [[0.5, 0, 0], [0, 1, 0]]


def test_figure_shows_networks_in_columns():
    image = torch.rand(1, 3, 40, 60)
    wide = np.asarray(saliency_figure({"a": UNet(1, (4, 4, 4)), "b": UNet(1, (4, 4, 4))}, image))
    assert wide.shape[1] == 3 * 368 + 8


@pytest.mark.parametrize("patch", [(0, 0, 9, 1), (-1, 0, 2, 2), (0, 0, 0, 2)])
def test_wrong_input(patch):
    with pytest.raises(ArgumentError, match="`patch` must be"):
        guided_saliency(UNet(1, (4, 4, 4)), torch.rand(1, 3, 8, 8), patch)
    with pytest.raises(ArgumentError, match="needs ReLUs, but GELU has run none"):
        guided_saliency(nn.GELU(), torch.rand(1, 3, 8, 8))
