"""Weights of TensorFlow's layout, against TensorFlow's definitions written out as loops."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reblurkit.models import load_weights
from reblurkit.models.tensorflow import from_tensorflow


def same_padding(size, kernel, stride):
    """Pixels that TensorFlow's ``SAME`` adds before: the smaller half."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2


def conv2d(image, kernel, stride):
    """``tf.nn.conv2d(..., padding="SAME")`` of one image (H, W, in) with a kernel (h, w, in, out)."""
    height, width, _ = image.shape
    rows, columns, _, out = kernel.shape
    result = np.zeros((-(-height // stride), -(-width // stride), out))
    top, left = same_padding(height, rows, stride), same_padding(width, columns, stride)
    for y, x in np.ndindex(*result.shape[:2]):
        for i, j in np.ndindex(rows, columns):
            row, column = y * stride + i - top, x * stride + j - left
            if 0 <= row < height and 0 <= column < width:
                result[y, x] += image[row, column] @ kernel[i, j]
    return result


def conv2d_transpose(features, kernel, stride):
    """``tf.nn.conv2d_transpose(..., padding="SAME")``: the transposed matrix of conv2d; kernel (h, w, out, in)."""
    height, width, _ = features.shape
    shape = (height * stride, width * stride, kernel.shape[2])
    basis = np.eye(np.prod(shape)).reshape(-1, *shape)
    matrix = np.stack([conv2d(image, kernel, stride).ravel() for image in basis])
    return (matrix @ features.ravel()).reshape(shape)


class StandIn(nn.Module):
    """The kinds of layers that SRN has, called as there or not."""

    def __init__(self):
        super().__init__()
        self.enc1_1 = nn.Conv2d(2, 3, 5, padding=2)
        self.enc1_2 = nn.Module()
        self.enc1_2.conv1 = nn.Conv2d(3, 3, 5, padding=2)
        self.down = nn.Conv2d(3, 4, 5, stride=2)
        self.dec2_4 = nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1)

    def forward(self, image):
        features = self.enc1_2.conv1(torch.relu(self.enc1_1(image)))
        features = self.down(F.pad(features, (1, 2, 1, 2)))
        return self.dec2_4(torch.relu(features))

    def convert_state_dict(self, state):
        return from_tensorflow(state, own_name)


def own_name(variable):
    found = re.fullmatch(r"g_net/(.*)/(weight|bias)e?s", variable)
    return f"{found[1].replace('/', '.').replace('enc2_1', 'down')}.{found[2]}" if found else variable


SHAPES = {"enc1_1": (5, 5, 2, 3), "enc1_2/conv1": (5, 5, 3, 3), "enc2_1": (5, 5, 3, 4), "dec2_4": (4, 4, 3, 4)}


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in SHAPES.items():
        biases = shape[2] if name == "dec2_4" else shape[3]
        arrays[f"g_net/{name}/weights"] = rng.normal(0, 0.2, shape).astype(np.float32)
        arrays[f"g_net/{name}/biases"] = rng.normal(0, 0.2, biases).astype(np.float32)
        arrays[f"g_net/{name}/weights/Adam"] = np.ones(shape, np.float32)
    return arrays | {"global_step": np.array(3), "beta1_power": np.array(0.5), "d_net/a/weights": np.ones((1, 1, 1, 1))}


def test_a_converted_network_computes_what_tensorflow_defines(variables, tmp_path):
    np.savez(tmp_path / "srn.npz", **variables)
    model = StandIn()
    report = load_weights(model, tmp_path / "srn.npz")
    assert report.complete
    assert report.loaded == 8

    image = np.random.default_rng(1).random((6, 8, 2))
    weights = {name: variables[f"g_net/{name}/weights"].astype(float) for name in SHAPES}
    biases = {name: variables[f"g_net/{name}/biases"].astype(float) for name in SHAPES}
    features = np.maximum(conv2d(image, weights["enc1_1"], 1) + biases["enc1_1"], 0)
    features = conv2d(features, weights["enc1_2/conv1"], 1) + biases["enc1_2/conv1"]
    features = np.maximum(conv2d(features, weights["enc2_1"], 2) + biases["enc2_1"], 0)
    expected = conv2d_transpose(features, weights["dec2_4"], 2) + biases["dec2_4"]

    output = model.double()(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert output.shape == (1, 3, 6, 8)
    np.testing.assert_allclose(output[0].permute(1, 2, 0).detach().numpy(), expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 0.5


def test_what_has_no_name_here_is_left_out_and_own_files_stay(variables):
    state = from_tensorflow({name: torch.as_tensor(value) for name, value in variables.items()}, own_name)
    assert set(state) == set(StandIn().state_dict())
    assert state["dec2_4.weight"].shape == (4, 3, 4, 4)
    own = StandIn().state_dict()
    assert from_tensorflow(own, own_name) == own
