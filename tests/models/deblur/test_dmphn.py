"""DMPHN against the authors' data flow, one patch at a time, from the parts' state dicts."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from reblurkit.models import DMPHN, create_model

WIDTHS = (4, 6, 8)
RESIDUAL = {"encoder": [2, 3, 6, 7, 10, 11], "decoder": [13, 14, 17, 18, 21, 22]}
STRIDED = {"encoder": [5, 9], "decoder": [16, 20]}  # down in the encoder, up in the decoder
SINGLE = {"encoder": [1], "decoder": [24]}


def part(kind, state, image):
    """An encoder or a decoder: its layers in the order of their numbers."""
    for number in sorted(RESIDUAL[kind] + STRIDED[kind] + SINGLE[kind]):
        name = f"layer{number}"
        if number in RESIDUAL[kind]:
            inner = F.conv2d(image, state[f"{name}.0.weight"], state[f"{name}.0.bias"], padding=1).relu()
            image = image + F.conv2d(inner, state[f"{name}.2.weight"], state[f"{name}.2.bias"], padding=1)
        elif kind == "decoder" and number in STRIDED[kind]:
            image = F.conv_transpose2d(image, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)
        else:
            stride = 2 if number in STRIDED[kind] else 1
            image = F.conv2d(image, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding=1)
    return image


def cut(image, times):
    """Halve the height, then the width, then the height again: patches as a nested list."""
    patches = [image]
    for halving in range(times):
        dimension = 2 if halving % 2 == 0 else 3
        patches = [half for patch in patches for half in patch.chunk(2, dimension)]
    return patches


def join(patches, times):
    for halving in reversed(range(times)):
        dimension = 2 if halving % 2 == 0 else 3
        patches = [torch.cat(patches[i : i + 2], dimension) for i in range(0, len(patches), 2)]
    return patches[0]


def authors_flow(parts, levels, blurry):
    """From the finest patches up: features meet in pairs, are added to those from below, and decoded."""
    image, features, residual = blurry - 0.5, 0, 0
    for level in range(levels, 0, -1):
        halvings = level - 1
        encoded = [part("encoder", parts[f"encoder_lv{level}"], p) for p in cut(image + residual, halvings)]
        features = join(encoded, halvings) + features
        above = max(halvings - 1, 0)
        residual = join([part("decoder", parts[f"decoder_lv{level}"], p) for p in cut(features, above)], above)
    return residual + 0.5


def parts_of(network):
    return {
        f"{kind}_lv{level}": module.state_dict()
        for kind, modules in (("encoder", network.encoders), ("decoder", network.decoders))
        for level, module in enumerate(modules, 1)
    }


@pytest.mark.parametrize(("name", "levels"), [("dmphn-1-2-4", 3), ("dmphn-1-2-4-8", 4)])
def test_computes_the_authors_data_flow(name, levels):
    network, blurry = create_model(name, widths=WIDTHS).double(), torch.rand(2, 3, 32, 16, dtype=torch.float64)
    blurry = torch.cat([blurry, blurry.flip(-1)], -1)
    expected = authors_flow(parts_of(network), levels, blurry)
    torch.testing.assert_close(network(blurry), expected, rtol=0, atol=1e-12)
    assert (expected - blurry).abs().max() > 1e-3


def test_dhn_is_the_same_without_patches():
    network, blurry = create_model("dhn", widths=WIDTHS).double(), torch.rand(1, 3, 12, 20, dtype=torch.float64)
    parts, image = parts_of(network), blurry - 0.5
    f4 = part("encoder", parts["encoder_lv4"], image)
    f3 = part("encoder", parts["encoder_lv3"], image + part("decoder", parts["decoder_lv4"], f4)) + f4
    f2 = part("encoder", parts["encoder_lv2"], image + part("decoder", parts["decoder_lv3"], f3)) + f3
    f1 = part("encoder", parts["encoder_lv1"], image + part("decoder", parts["decoder_lv2"], f2)) + f2
    expected = part("decoder", parts["decoder_lv1"], f1) + 0.5
    torch.testing.assert_close(network(blurry), expected, rtol=0, atol=1e-12)


def test_patches_do_not_see_each_other_in_the_last_level():
    network = DMPHN((1, 2, 4, 8), widths=WIDTHS).double()
    seen = []
    network.encoders[3].register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].shape, output)))
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    network(image)
    image[..., :4, :8] += 1
    network(image)
    (shape, before), (_, after) = seen
    assert shape == (8, 3, 4, 8)
    assert (before != after).flatten(1).any(1).tolist() == [True] + 7 * [False]


def test_keys_are_those_of_the_authors_files():
    entries = {
        kind: {
            f"layer{number}{place}.{entry}"
            for numbers, places in ((RESIDUAL, (".0", ".2")), (STRIDED, ("",)), (SINGLE, ("",)))
            for number in numbers[kind]
            for place in places
            for entry in ("weight", "bias")
        }
        for kind in ("encoder", "decoder")
    }
    network = DMPHN(widths=WIDTHS)
    for name, state in parts_of(network).items():
        assert set(state) == entries[name.split("_")[0]]
    files = {f"{kind}_lv{level}.{key}" for kind, keys in entries.items() for level in (1, 2, 3, 4) for key in keys}
    assert {DMPHN.official_key(key) for key in files} == set(network.state_dict())
    assert DMPHN.official_key("encoders.0.layer1.weight") == "encoders.0.layer1.weight"


def test_starts_as_the_authors():
    torch.manual_seed(1)
    for name, parameter in DMPHN((1,)).named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0
        elif parameter.numel() > 10_000:
            transposed = "layer16" in name or "layer20" in name
            outputs, kernel = parameter.shape[1 if transposed else 0], parameter.shape[2]
            assert parameter.std().item() == pytest.approx(0.5 * math.sqrt(2 / (kernel**2 * outputs)), rel=0.02)
