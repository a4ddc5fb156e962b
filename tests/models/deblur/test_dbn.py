"""DBN against the authors' layer table, evaluated line by line, in its three published variants."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from reblurkit.errors import ShapeError
from reblurkit.models import DBN

TABLE = """
f0 5 15 1 | d1 3 1 1 / | f1 3 1 2 | f2 3 2 2 | d2 3 2 4 / | f3 3 4 4 | f4 3 4 4 | f5 3 4 4
d3 3 4 8 / | f6 3 8 8 | f7 3 8 8 | f8 3 8 8 | u1 + f5 | f9 3 4 4 | f10 3 4 4 | f11 3 4 4
u2 + f2 | f12 3 2 2 | f13 3 2 1 | u3 + f0 | f14 3 1 15 | f15 3 15 3
"""
ROWS = [row.split() for row in TABLE.replace("\n", " | ").split("|") if row.strip()]
VARIANTS = {
    "authors": {},
    "deblur-devil": {"sigmoid": False, "bias": False},
    "simdeblur": {"sigmoid": False, "relu_before_skip": True},
}


def published(state, clip, sigmoid=True, bias=True, relu_before_skip=False, training=False):
    def normalise(name, image):
        mean, variance = state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"]
        if training:
            mean, variance = image.mean((0, 2, 3)), image.var((0, 2, 3), correction=0)
        shape = (-1, 1, 1)
        scale = state[f"{name}.1.weight"] / torch.sqrt(variance + 1e-3)
        return (image - mean.view(shape)) * scale.view(shape) + state[f"{name}.1.bias"].view(shape)

    image, kept = torch.cat(list(clip.unbind(1)), 1), {}
    for name, *how in ROWS:
        weight, shift = state[f"{name}.0.weight"], state[f"{name}.0.bias"] if bias else None
        if how[0] == "+":
            image = normalise(name, F.conv_transpose2d(image, weight, shift, stride=2, padding=1))
            image = (image.relu() if relu_before_skip else image) + kept[how[1]]
        else:
            image = normalise(name, F.conv2d(image, weight, shift, 2 if "/" in how else 1, int(how[0]) // 2))
        image = kept[name] = image if name == "f15" else image.relu()
    image = clip[:, 2] + image
    return 1 / (1 + torch.exp(-image)) if sigmoid else image


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_computes_the_published_variants(variant, training):
    network = DBN(width=4, **VARIANTS[variant]).double().train(training)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                torch.nn.init.uniform_(value, 0.5, 1.5)
            for value in (module.bias, module.running_mean):
                torch.nn.init.normal_(value)
    clip = torch.rand(2, 5, 3, 16, 24, dtype=torch.float64)
    expected = published(network.state_dict(), clip, **VARIANTS[variant], training=training)
    torch.testing.assert_close(network(clip), expected, rtol=0, atol=1e-12)


def test_variant_without_biases_has_the_parameters_of_deblur_devil():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DBN(bias=False).parameters()) == 15_300_409


def test_table_has_the_published_widths():
    with torch.device("meta"):
        network = DBN()
    channels = {"15": 15, "1": 64, "2": 128, "4": 256, "8": 512, "3": 3}
    for name, *how in ROWS:
        if how[0] != "+":
            convolution = network.get_submodule(f"{name}.0")
            assert (convolution.in_channels, convolution.out_channels) == (channels[how[1]], channels[how[2]])


def entries(names, bias):
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for name in names:
        yield from (f"{name}.0.{entry}" for entry in (("weight", "bias") if bias else ("weight",)))
        yield from (f"{name}.1.{entry}" for entry in batch_norm)


def test_keys_of_the_published_files():
    names = [name for name, *_ in ROWS]
    assert set(DBN(width=2).state_dict()) == set(entries(names, bias=True))

    devil = list(entries([f"dbn_net.{name}" for name in names], bias=False))
    assert {DBN.official_key(key) for key in devil} == set(DBN(width=2, bias=False).state_dict())

    stages = ["F0", "D1", "F1_1", "F1_2", "D2", "F2_1", "F2_2", "F2_3", "D3", "F3_1", "F3_2", "F3_3"]
    stages += ["U1", "F4_1", "F4_2", "F4_3", "U2", "F5_1", "F5_2", "U3", "F6_1", "F6_2"]
    # both lists are in the order of the data flow
    assert [DBN.official_key(f"{stage}.0.weight") for stage in stages] == [f"{name}.0.weight" for name in names]
    assert all(DBN.official_key(key) == key for key in DBN(width=2).state_dict())


def test_without_a_correction_the_output_is_the_centre_frame():
    network = DBN(width=2, sigmoid=False).eval()
    torch.nn.init.zeros_(network.f15[1].weight)
    clip = torch.rand(1, 5, 3, 8, 8)
    assert torch.equal(network(clip), clip[:, 2])


@pytest.mark.parametrize("shape", [(1, 15, 8, 8), (1, 3, 3, 8, 8), (5, 3, 8, 8)])
def test_other_shapes_than_clips_are_refused(shape):
    with pytest.raises(ShapeError, match=r"must be clips \(B, 5, 3, H, W\)"):
        DBN(width=2)(torch.rand(shape))
