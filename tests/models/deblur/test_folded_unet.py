from __future__ import annotations

import pytest
import torch

from reblurkit.errors import ArgumentError
from reblurkit.models import FoldedUNet, create_model


def small(**options):
    return FoldedUNet((8, 12, 16), (1, 1, 2), **options)


def stirred():
    """Every layer matters: what starts at 0 is somewhere else."""
    network = small()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("size", [(16, 24), (17, 31), (1, 1), (3, 40)])
def test_a_new_network_is_the_identity_at_any_size(size):
    image = torch.rand(2, 3, *size)
    assert torch.equal(small()(image), image)


@pytest.mark.parametrize("size", [(16, 24), (17, 31)])
def test_other_sizes_are_padded_by_their_border(size):
    network, image = stirred(), torch.rand(1, 3, *size)
    padded = torch.nn.functional.pad(image, (0, -size[1] % 8, 0, -size[0] % 8), mode="replicate")
    assert network.multiple == 8
    torch.testing.assert_close(network(image), network(padded)[..., : size[0], : size[1]])


def test_every_parameter_learns():
    network = stirred()
    network(torch.rand(2, 3, 16, 16)).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    fresh = small()
    fresh(torch.rand(2, 3, 16, 16)).square().mean().backward()
    assert fresh.leave.weight.grad.abs().max() > 0


def test_an_image_does_not_depend_on_its_batch():
    network, images = stirred().double(), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=0, atol=1e-12)


def test_one_level_and_the_name():
    assert FoldedUNet((4,), (1,)).multiple == 2
    assert isinstance(create_model("folded-unet", widths=(4,), blocks=(0,)), FoldedUNet)


@pytest.mark.parametrize(("widths", "blocks"), [((), ()), ((8, 8), (1,)), ((0,), (1,)), ((8,), (-1,))])
def test_wrong_numbers(widths, blocks):
    with pytest.raises(ArgumentError, match="`widths` must be positive numbers and `blocks` as many, at least 0"):
        FoldedUNet(widths, blocks)
