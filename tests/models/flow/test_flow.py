from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from scipy.ndimage import shift
from skimage.data import astronaut
from torchvision.models import optical_flow

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models import create_model, list_models, load_weights
from reblurkit.models.flow.pwc_net import correlation, warp

SMALL = {
    "flownet-s": {"width": 4},
    "pwc-net": {"widths": (4, 4, 8, 8, 8, 8)},
    "raft-small": {"updates": 2},
    "raft-large": {"updates": 2},
    "tvl1": {},
}
LEARNED = [name for name in SMALL if name != "tvl1"]


def small(name, **more):
    torch.manual_seed(0)
    return create_model(name, **SMALL[name], **more).eval()


def test_names():
    assert list_models("flow") == sorted(SMALL)


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("flownet-s", {}, 38_675_536),
        ("flownet-s", {"batch_norm": True}, 38_680_336),
        ("pwc-net", {}, 9_374_340),
        ("raft-small", {}, 990_162),
        ("raft-large", {}, 5_257_536),
        ("tvl1", {}, 0),
    ],
)
def test_parameter_counts(name, arguments, count):
    with torch.device("meta"):
        network = create_model(name, **arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(1, 1), (37, 70), (64, 64)])
def test_flow_has_the_images_size(name, size):
    source, target = torch.rand(2, 2, 3, *size)
    flow = small(name)(source, target)
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()
    assert flow.dtype == source.dtype


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_reach_both_images_and_every_parameter_in_use(name):
    network = small(name)
    # RAFT passes no gradient to the source along the positions of its first look-up: two updates are needed.
    source, target = torch.rand(2, 1, 3, 64, 64).unbind(0)
    source.requires_grad_()
    target.requires_grad_()
    network(source, target).square().sum().backward()
    assert source.grad.abs().sum() > 0
    assert target.grad.abs().sum() > 0
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == ({"deconv2.weight", "deconv2.bias"} if name == "pwc-net" else set())


@pytest.mark.parametrize("name", LEARNED)
def test_networks_can_be_copied_after_a_call(name):
    network, (source, target) = small(name), torch.rand(2, 1, 3, 32, 32)
    network(source, target)
    assert torch.equal(copy.deepcopy(network)(source, target), network(source, target))


@pytest.mark.parametrize("name", LEARNED)
def test_pairs_of_a_batch_do_not_see_each_other(name):
    network, (source, target) = small(name), torch.rand(2, 2, 3, 40, 40)
    torch.testing.assert_close(network(source, target)[1:], network(source[1:], target[1:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["flownet-s", "pwc-net"])
def test_compiles(name):
    network, (source, target) = small(name), torch.rand(2, 1, 3, 64, 64)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(source, target), network(source, target))


@pytest.mark.parametrize("name", SMALL)
def test_wrong_images(name):
    network, image = small(name), torch.rand(1, 3, 16, 16)
    with pytest.raises(ShapeError, match="`source` and `target` must have the same shape"):
        network(image, image[..., 1:])
    with pytest.raises(ShapeError, match="need RGB images"):
        network(image[:, :1], image[:, :1])
    with pytest.raises(ArgumentError, match="floating point"):
        network((255 * image).byte(), (255 * image).byte())


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="'small' or 'large'"):
        create_model("raft-small", size="tiny")
    with pytest.raises(ArgumentError, match="six positive numbers"):
        create_model("pwc-net", widths=(4, 4))


def moved(image, u, v):
    """A copy whose content lies (u, v) further: image(p) = moved(p + (u, v))."""
    return torch.stack([torch.from_numpy(shift(channel.numpy(), (v, u), order=3, mode="nearest")) for channel in image])


@pytest.mark.parametrize(("u", "v"), [(1.5, -0.75), (3.2, 2.1), (-6.0, 4.3)])
def test_tvl1_finds_a_known_shift(u, v):
    image = torch.from_numpy(astronaut()[100:228, 100:260] / 255).permute(2, 0, 1)
    flow = create_model("tvl1")(image[None], moved(image, u, v)[None])[0, :, 16:-16, 16:-16]
    expected = torch.tensor([u, v], dtype=torch.float64).view(2, 1, 1)
    assert (flow - expected).abs().mean() < 0.1
    assert (flow.mean((1, 2)) - expected.flatten()).abs().max() < 0.05


def test_tvl1_flow_is_a_constant_for_autograd():
    network = create_model("tvl1")
    source, target = torch.rand(2, 1, 3, 16, 16)
    assert not network.differentiable
    assert not network(source.requires_grad_(), target).requires_grad


def zeroed(network):
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize(("bgr", "channel"), [(False, 0), (True, 2)])
def test_flownet_s_scale_channels_and_normalisation_by_hand_set_weights(bgr, channel):
    """With one path left through the network, flow is a known multiple of one colour of each image."""
    network = zeroed(small("flownet-s", bgr=bgr))
    with torch.no_grad():
        network.conv1[0].weight[0, 0, 3, 3] = 1  # the first colour of the source
        network.conv1[0].weight[1, 3, 3, 3] = 1  # the first colour of the target
        for index in (0, 1):
            network.conv2[0].weight[index, index, 2, 2] = 1
        network.predict_flow2.weight[0, 0, 1, 1] = 1  # u from the source
        network.predict_flow2.weight[1, 1, 1, 1] = 1  # v from the target
    source, target = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    source[:, channel], target[:, channel] = 0.811, 0.9
    mean = 0.411 if not bgr else 0.45
    expected = torch.tensor([20 * (0.811 - mean), 20 * (0.9 - mean)])
    torch.testing.assert_close(network(source, target)[0, :, 20, 20], expected)


def test_pwc_net_scale_of_each_level_by_hand_set_weights():
    """A constant flow of the coarsest level arrives in pixels at full size; so does the context's correction."""
    network = zeroed(small("pwc-net"))
    source, target = torch.rand(2, 1, 3, 64, 64)
    with torch.no_grad():
        network.dc_conv7.bias[:] = torch.tensor([0.5, -0.25])
    torch.testing.assert_close(network(source, target)[0, :, 5, 9], torch.tensor([10.0, -5.0]))


def test_pwc_net_warps_by_the_flow_below(monkeypatch):
    """The level above gets the flow of the one below, converted to its own pixels."""
    network = zeroed(small("pwc-net"))
    with torch.no_grad():
        network.predict_flow6.bias[:] = torch.tensor([0.8, -1.6])  # 16 and -32 pixels at full size
        for channel in (0, 1):
            network.deconv6.weight[channel, channel] = 0.25  # keeps a constant, inside
    flows = []
    monkeypatch.setattr(
        "reblurkit.models.flow.pwc_net.warp", lambda image, flow: (flows.append(flow), warp(image, flow))[1]
    )
    network(*torch.rand(2, 1, 3, 256, 256))
    torch.testing.assert_close(flows[0][0, :, 3, 3], torch.tensor([16 / 32, -32 / 32]))


def test_correlation_by_its_definition():
    source, target = torch.rand(2, 1, 3, 4, 5)
    cost = correlation(source, target, 2)
    assert cost.shape == (1, 25, 4, 5)
    for (index, (dy, dx)), y, x in product(enumerate(product(range(-2, 3), repeat=2)), range(4), range(5)):
        inside = 0 <= y + dy < 4 and 0 <= x + dx < 5
        expected = (source[0, :, y, x] * target[0, :, y + dy, x + dx]).mean() if inside else torch.tensor(0.0)
        torch.testing.assert_close(cost[0, index, y, x], expected)


def test_warp_by_whole_pixels():
    image = torch.rand(1, 2, 6, 7)
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 6, 7)
    warped = warp(image, flow)
    torch.testing.assert_close(warped[..., 1:, :-2], image[..., :-1, 2:], rtol=0, atol=1e-5)
    assert (warped[..., 0, :] == 0).all()
    assert (warped[..., -2:] == 0).all()


@pytest.mark.parametrize("size", ["small", "large"])
def test_raft_is_torchvisions(size):
    ours = small(f"raft-{size}")
    theirs = getattr(optical_flow, f"raft_{size}")().eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    source, target = torch.rand(2, 1, 3, 128, 136)
    expected = theirs(2 * source - 1, 2 * target - 1, num_flow_updates=2)[-1]
    torch.testing.assert_close(ours(source, target), expected)


def names_of(layers):
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_keys_of_official_files():
    encoder = ["conv1", "conv2", "conv3", "conv3_1", "conv4", "conv4_1", "conv5", "conv5_1", "conv6", "conv6_1"]
    expected = names_of(f"{layer}.0" for layer in encoder)
    expected |= {f"deconv{level}.0.weight" for level in (5, 4, 3, 2)}
    expected |= {f"predict_flow{level}.weight" for level in (6, 5, 4, 3, 2)}
    expected |= {f"upsampled_flow{level}_to_{level - 1}.weight" for level in (6, 5, 4, 3)}
    assert small("flownet-s").state_dict().keys() == expected

    expected = names_of(f"conv{level}{part}.0" for level in range(1, 7) for part in ("a", "aa", "b"))
    expected |= names_of(f"conv{level}_{index}.0" for level in range(2, 7) for index in range(5))
    expected |= names_of(f"{kind}{level}" for level in range(2, 7) for kind in ("predict_flow", "deconv"))
    expected |= names_of(f"upfeat{level}" for level in range(3, 7))
    expected |= names_of([*(f"dc_conv{index}.0" for index in range(1, 7)), "dc_conv7"])
    assert small("pwc-net").state_dict().keys() == expected


def pytorch_pwc_names():
    """Tensors as pytorch-pwc's modules name them, in the order of its program, with the authors' names."""
    names = {}
    parts = ["aa", "a", "b"]
    for number, word in enumerate(("One", "Two", "Thr", "Fou", "Fiv", "Six"), 1):
        for place, part in zip((0, 2, 4), parts if number == 6 else ["a", "aa", "b"], strict=True):
            names[f"moduleExtractor.module{word}.{place}"] = f"conv{number}{part}.0"
        if number == 1:
            continue
        if number < 6:
            names[f"module{word}.moduleUpflow"] = f"deconv{number + 1}"
            names[f"module{word}.moduleUpfeat"] = f"upfeat{number + 1}"
        for index, layer in enumerate(("One", "Two", "Thr", "Fou", "Fiv")):
            names[f"module{word}.module{layer}.0"] = f"conv{number}_{index}.0"
        names[f"module{word}.moduleSix.0"] = f"predict_flow{number}"
    for index in range(1, 7):
        names[f"moduleRefiner.moduleMain.{2 * index - 2}"] = f"dc_conv{index}.0"
    names["moduleRefiner.moduleMain.12"] = "dc_conv7"
    return {f"{theirs}.{entry}": f"{ours}.{entry}" for theirs, ours in names.items() for entry in ("weight", "bias")}


@pytest.mark.parametrize("prefix", ["module", "net"])
def test_pwc_net_takes_the_names_of_pytorch_pwc(tmp_path, prefix):
    saved, loaded = small("pwc-net"), small("pwc-net")
    state, names = saved.state_dict(), pytorch_pwc_names()
    assert {*names.values()} == state.keys() - {"deconv2.weight", "deconv2.bias"}
    theirs = {name.replace("module", prefix): state[own] for name, own in names.items()}
    torch.save(theirs, tmp_path / "network-default.pytorch")
    load_weights(loaded, tmp_path / "network-default.pytorch")
    images = torch.rand(2, 1, 3, 70, 64)
    with torch.no_grad():
        assert torch.equal(loaded(*images), saved(*images))
