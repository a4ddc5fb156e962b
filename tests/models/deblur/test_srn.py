"""SRN against its graph in TensorFlow's own terms, written out on arrays in TensorFlow's layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reblurkit.models import SRN

WIDTHS = {"1": 4, "2": 6, "3": 8}


def variables(seed=0):
    """Every variable of the authors' checkpoint by name, in their array layout, at small widths."""
    generator = np.random.default_rng(seed)
    shapes = {}
    for kind in ("enc", "dec"):
        for level, width in WIDTHS.items():
            for number in {"enc": "234", "dec": "321"}[kind]:
                for conv in ("conv1", "conv2"):
                    shapes[f"{kind}{level}_{number}/{conv}"] = (5, 5, width, width)
    shapes |= {"enc1_1": (5, 5, 6, 4), "enc2_1": (5, 5, 4, 6), "enc3_1": (5, 5, 6, 8)}
    shapes |= {"dec2_4": (4, 4, 6, 8), "dec1_4": (4, 4, 4, 6), "dec1_0": (5, 5, 4, 3)}
    arrays = {}
    for name, shape in shapes.items():
        outputs = shape[2] if name in ("dec2_4", "dec1_4") else shape[3]
        arrays[f"g_net/{name}/weights"] = generator.normal(size=shape) / np.sqrt(25 * shape[3])
        arrays[f"g_net/{name}/biases"] = 0.1 * generator.normal(size=outputs)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def converted(arrays):
    return {
        SRN.official_key(name): array.permute(3, 2, 0, 1) if array.ndim == 4 else array
        for name, array in arrays.items()
    }


def tensorflow_graph(arrays, blurry):
    """Three scales as TensorFlow 1 computes them."""

    def weights(name):
        return arrays[f"g_net/{name}/weights"], arrays[f"g_net/{name}/biases"]

    def same(image, kernel, stride):
        height, width, before, after = *image.shape[-2:], [], []
        for size in (width, height):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before.append(total // 2)
            after.append(total - total // 2)
        return F.pad(image, (before[0], after[0], before[1], after[1]))

    def conv(image, name, stride=1):
        weight, bias = weights(name)
        return F.conv2d(same(image, len(weight), stride), weight.permute(3, 2, 0, 1), bias, stride)

    def transposed(image, name):
        """The gradient of the convolution that it is named after."""
        weight, bias = weights(name)
        height, width = image.shape[-2:]
        large = torch.zeros(len(image), weight.shape[2], 2 * height, 2 * width, dtype=image.dtype, requires_grad=True)
        small = F.conv2d(same(large, 4, 2), weight.permute(3, 2, 0, 1), stride=2)
        return torch.autograd.grad(small, large, image)[0] + bias[:, None, None]

    def blocks(image, stage, numbers):
        for number in numbers:
            inner = conv(image, f"{stage}_{number}/conv1").relu()
            image = image + conv(inner, f"{stage}_{number}/conv2")
        return image

    def resize(image, height, width):
        """Bilinear; output pixel i lies at i * (old size / new size), no half-pixel centres."""
        array = image.numpy()
        for axis, size in ((2, height), (3, width)):
            old = array.shape[axis]
            places = np.arange(size) * (old / size)
            array = np.apply_along_axis(lambda line, p=places, n=old: np.interp(p, np.arange(n), line), axis, array)
        return torch.from_numpy(array)

    height, width = blurry.shape[-2:]
    outputs, estimate = [], blurry
    for factor in (4, 2, 1):
        size = (height // factor, width // factor)
        both = torch.cat([resize(blurry, *size), resize(estimate, *size)], 1)
        full = blocks(conv(both, "enc1_1").relu(), "enc1", "234")
        half = blocks(conv(full, "enc2_1", 2).relu(), "enc2", "234")
        quarter = blocks(blocks(conv(half, "enc3_1", 2).relu(), "enc3", "234"), "dec3", "321")
        half = blocks(transposed(quarter, "dec2_4").relu() + half, "dec2", "321")
        full = blocks(transposed(half, "dec1_4").relu() + full, "dec1", "321")
        estimate = conv(full, "dec1_0").detach()
        outputs.append(estimate)
    return outputs


def test_converted_weights_compute_the_tensorflow_graph():
    arrays, blurry = variables(), torch.rand(2, 3, 32, 48, dtype=torch.float64)
    network = SRN(tuple(WIDTHS.values()), tensorflow=True).double()
    network.load_state_dict(converted(arrays))
    torch.testing.assert_close(network(blurry), tensorflow_graph(arrays, blurry), rtol=0, atol=1e-12)


def test_keys_are_the_variables_one_to_one():
    keys = [SRN.official_key(name) for name in variables()]
    assert len(set(keys)) == len(keys)
    assert set(keys) == set(SRN(tuple(WIDTHS.values())).state_dict())
    assert SRN.official_key("g_net/enc1_1/weights:0") == "enc1.0.weight"
    assert SRN.official_key("enc1.0.weight") == "enc1.0.weight"
    assert SRN.official_key("g_net/enc1_1/weights/Adam") == "g_net/enc1_1/weights/Adam"


def test_symmetric_padding_and_half_pixels_are_the_default():
    state, blurry = converted(variables()), torch.rand(1, 3, 16, 16, dtype=torch.float64)
    plain, tensorflow = (SRN(tuple(WIDTHS.values()), tensorflow=flag).double() for flag in (False, True))
    for network in (plain, tensorflow):
        network.load_state_dict(state)
    assert all(not torch.allclose(a, b) for a, b in zip(plain(blurry), tensorflow(blurry), strict=True))
    # The first scale sees the blurry image alone: its resized copy is PyTorch's, its padding 2 on each side.
    resized = F.interpolate(blurry, scale_factor=0.25, mode="bilinear")
    seen = []
    plain.enc1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    coarse, *_ = plain(blurry)
    assert torch.equal(seen[0], torch.cat([resized, resized], 1))
    doubled = F.interpolate(coarse, scale_factor=2, mode="bilinear")
    assert torch.equal(seen[1][:, 3:], doubled)
    assert plain.enc2[0].padding == (2, 2)


def test_no_gradient_passes_between_scales():
    network = SRN(tuple(WIDTHS.values()))
    coarse, middle, fine = network(torch.rand(1, 3, 16, 16))
    for image in (coarse, middle, fine):
        image.retain_grad()
    fine.sum().backward()
    assert coarse.grad is None
    assert middle.grad is None


def test_starts_xavier_uniform_with_biases_at_zero():
    for name, parameter in SRN().named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0
        else:
            out, inputs, height, width = parameter.shape
            bound = (6 / ((out + inputs) * height * width)) ** 0.5
            assert 0.95 * bound < parameter.abs().max() <= bound


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_other_numbers_of_scales(scales):
    network = SRN((2, 2, 2), scales=scales)
    assert network.multiple == 2 ** (scales + 1)
    assert len(network(torch.rand(1, 3, 32, 32))) == scales
