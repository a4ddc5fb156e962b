from __future__ import annotations

import pytest
import torch

from reblurkit.errors import ArgumentError
from reblurkit.models import ReblurNet, UNet, create_model, list_models

NAMES = ["unet", *list_models("reblur")]  # deblurring backbones: deblur/test_backbones.py


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("reblur-n1", 214_595),
        ("reblur-n2", 419_523),
        ("reblur-n3", 624_451),
        ("reblur-n4", 829_379),
        ("unet", 5_911_491),
    ],
)
def test_parameter_counts_of_the_papers_tables(name, count):
    assert parameters(create_model(name)) == count


ANY_SIZE = [
    "unet",
    *list_models("reblur"),
]  # the others, which ask for multiples, are in deblur/ and test_published_networks.py


def small(name):
    return create_model(name, **({"widths": (4, 6, 8), "blocks": 1} if name == "unet" else {"width": 4}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 8), (13, 30)])
def test_every_size_is_kept(name, size):
    image = torch.rand(2, 3, *size)
    assert small(name)(image).shape == image.shape


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    network = small(name)
    network(torch.rand(2, 3, 9, 11)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_see_each_other(name):
    network, images = small(name).double(), torch.rand(3, 3, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_compiles(name):
    network, image = small(name), torch.rand(1, 3, 8, 8)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name):
    network = small(name).bfloat16()
    assert network(torch.rand(1, 3, 8, 8, dtype=torch.bfloat16)).isfinite().all()


def test_global_residual_adds_the_input():
    torch.manual_seed(0)
    plain = UNet(1, (4, 6, 8), global_residual=False)
    torch.manual_seed(0)
    residual = UNet(1, (4, 6, 8))
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(residual(image), image + plain(image))

    torch.manual_seed(0)
    plain = ReblurNet(width=4)
    torch.manual_seed(0)
    residual = ReblurNet(width=4, global_residual=True)
    torch.testing.assert_close(residual(image), image + plain(image) - 0.5)


def test_reblur_net_starts_as_the_identity_where_asked_to():
    network, image = ReblurNet(width=4, identity=True), torch.rand(1, 3, 8, 8)
    assert torch.equal(network(image), image)
    assert not torch.allclose(ReblurNet(width=4, global_residual=True)(image), image)
    network(image).square().sum().backward()
    assert network.layers[-1].weight.grad.abs().max() > 0


def test_skips_carry_features():
    torch.manual_seed(0)
    with_skips = UNet(1, (4, 6, 8))
    torch.manual_seed(0)
    without = UNet(1, (4, 6, 8), skips=False)
    image = torch.rand(1, 3, 8, 8)
    assert not torch.allclose(with_skips(image), without(image))


def test_unet_treats_padding_as_replicated_border():
    network, image = UNet(1, (4, 6, 8)), torch.rand(1, 3, 10, 7)
    padded = torch.nn.functional.pad(image, (0, 1, 0, 2), mode="replicate")
    torch.testing.assert_close(network(image), network(padded)[..., :10, :7])


def test_names():
    assert {"unet", "srn", "dhn", "dmphn-1-2-4", "dmphn-1-2-4-8", "msresnet", "dbn", "deblurgan"} <= {
        *list_models("deblur")
    }
    assert set(list_models("deblur")) < set(list_models())
    with pytest.raises(ArgumentError, match="did you mean reblur-n"):
        create_model("reblur-n9")
    with pytest.raises(ArgumentError, match="unknown kind 'foo' of model; known kinds: deblur, flow"):
        list_models("foo")
    with pytest.raises(ArgumentError, match=r"known names: .*reblur-n1"):
        create_model("zzz")


def test_creating_downloads_nothing_and_takes_widths():
    assert parameters(create_model("unet", blocks=2, widths=(8, 12, 16))) < 20_000


@pytest.mark.parametrize("network", [lambda: ReblurNet(-1), lambda: ReblurNet(width=0), lambda: UNet(widths=(1, 2))])
def test_wrong_sizes(network):
    with pytest.raises(ArgumentError, match="must be"):
        network()


def test_arguments_that_a_network_does_not_have():
    with pytest.raises(ArgumentError, match="'unet' has no argument 'depth'; it has: blocks"):
        create_model("unet", depth=3)
    with pytest.raises(ArgumentError, match="must be a text, but is None"):
        create_model(None)


@pytest.mark.parametrize("size", [(16, 24), (15, 21)])
def test_a_folded_reblurring_network(size):
    torch.manual_seed(0)
    plain, folded = ReblurNet(width=8), ReblurNet(width=8, fold=2)
    image = torch.rand(2, 3, *size)
    assert folded(image).shape == image.shape
    assert folded.layers[0].weight.shape == (8, 12, 5, 5)
    # The layers see a picture of half the size: a pixel reaches twice as far.
    reach = []
    for network in (plain, folded):
        image = torch.rand(1, 3, 65, 65, requires_grad=True)
        network(image)[..., 32, 32].sum().backward()
        reach.append(int((image.grad[0].abs().sum(0) > 0).any(0).sum()))
    assert reach == [17, 34]
    assert torch.equal(ReblurNet(width=4, fold=2, identity=True)(image), image)
    with pytest.raises(ArgumentError, match="`width` and `fold` at least 1, but are 1, 64 and 0"):
        ReblurNet(fold=0)
