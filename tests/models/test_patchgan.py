from __future__ import annotations

import pytest
import torch

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models import PatchGAN, create_model, list_models


def test_parameters_of_the_papers_program():
    assert list_models("discriminator") == ["patchgan"]
    assert sum(parameter.numel() for parameter in create_model("patchgan").parameters()) == 2_764_737


def test_keys_and_shapes_of_pix2pixs_layout():
    shapes = {name: tuple(value.shape) for name, value in PatchGAN().state_dict().items()}
    assert shapes == {
        "model.0.weight": (64, 3, 4, 4),
        "model.0.bias": (64,),
        "model.2.weight": (128, 64, 4, 4),
        "model.2.bias": (128,),
        "model.5.weight": (256, 128, 4, 4),
        "model.5.bias": (256,),
        "model.8.weight": (512, 256, 4, 4),
        "model.8.bias": (512,),
        "model.11.weight": (1, 512, 4, 4),
        "model.11.bias": (1,),
    }


def test_maps_of_a_pyramid():
    network = PatchGAN(width=2)
    pyramid = [torch.rand(2, 3, side, side) for side in (64, 128, 256)]
    maps = network(pyramid)
    assert [tuple(scores.shape) for scores in maps] == [(2, 1, 6, 6), (2, 1, 14, 14), (2, 1, 30, 30)]
    for scale, scores in zip(pyramid, maps, strict=True):
        assert torch.equal(network(scale), scores), "the same weights judge every scale"


def test_a_score_sees_seventy_pixels():
    network = PatchGAN(width=2).double()
    for module in network.model:
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.forward = lambda features: features  # it sees the whole image
    image = torch.rand(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    network(image)[0, 0, 15, 15].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_smallest_images(layers):
    network, side = PatchGAN(width=2, layers=layers), 3 * 2**layers
    assert network(torch.rand(1, 3, side, side)).shape[2:] == (1, 1)
    with pytest.raises(ShapeError, match=rf"at least {side} x {side} pixels, but came \({side - 1}, 200\)"):
        network(torch.rand(1, 3, side - 1, 200))


def test_images_of_a_batch_do_not_see_each_other():
    network, images = PatchGAN(width=4, layers=2).double(), torch.rand(3, 3, 20, 24, dtype=torch.float64)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=0, atol=1e-14)


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="must be at least 1, but are 64 and 0"):
        PatchGAN(layers=0)
