from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest
from skimage import data

from reblurkit.blur import ShuffledDegradation
from reblurkit.blur import shuffled as module
from reblurkit.errors import ArgumentError, ShapeError


@pytest.fixture
def photo():
    return torch.from_numpy(data.astronaut()[:64, 100:180].copy()).permute(2, 0, 1)[None].double() / 255


def test_the_gaussians_are_scipys(photo):
    """Along the axes; the kernels are cut off at seven pixels, SciPy's are not."""
    for across, along in ((0.4, 0.4), (2.0, 1.0), (0.5, 2.1)):
        blurred = module._gaussian(photo, along**2, across**2, 0.0)
        expected = gaussian_filter(photo.numpy(), (0, 0, across, along), mode="nearest")
        assert (blurred - torch.from_numpy(expected)).abs().max() < 4e-3


def test_a_turned_gaussian_has_the_turned_covariance():
    dot = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    dot[..., 7, 7] = 1
    angle = 0.6
    kernel = module._gaussian(dot, 2.0, 0.7, angle)[0, 0]
    y, x = torch.meshgrid(*[torch.arange(-7.0, 8)] * 2, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    found = [(kernel * product).sum().item() for product in (x * x, y * y, x * y)]
    expected = [2 * cos**2 + 0.7 * sin**2, 2 * sin**2 + 0.7 * cos**2, (2.0 - 0.7) * sin * cos]
    assert found == pytest.approx(expected, rel=0.02)
    assert module._gaussian(dot, 0.0, 0.0, 0.0)[0, 0, 7, 7] == 1


def test_every_order_comes(photo, monkeypatch):
    """Steps note that they ran; each is there once, and orders are as likely."""
    orders, current = {}, []

    def noting(name):
        def step(image, generator):
            current.append(name)
            return image

        return step

    for name in ("_isotropic", "_anisotropic", "_reduced", "_sensed"):
        monkeypatch.setattr(module, name, noting(name))
    degradation = ShuffledDegradation(seed=0)
    degradation._noisy = noting("_noisy")
    degradation._maybe_compressed = noting("_jpeg")
    for _ in range(300):
        current.clear()
        degradation(photo[..., :8, :8])
        assert sorted(current) == sorted({*current})
        assert len(current) == 6
        orders[tuple(current)] = orders.get(tuple(current), 0) + 1
    assert len(orders) > 200
    firsts = [sum(count for order, count in orders.items() if order[0] == name) for name in current]
    assert min(firsts) > 30


def test_noise_is_drawn_as_stated():
    grey = torch.full((1, 3, 40, 40), 0.5, dtype=torch.float64)
    degradation = ShuffledDegradation(noise=(5, 20))
    kinds, deviations = [], []
    for seed in range(300):
        noise = degradation._noisy(grey, torch.Generator().manual_seed(seed))[0] - grey[0]
        covariance = torch.cov(noise.flatten(1))
        correlation = covariance[0, 1] / covariance.diagonal()[:2].prod().sqrt()
        same = torch.equal(noise[0], noise[1])
        kinds.append("grey" if same else "colour" if abs(correlation) < 0.1 else "mixed")
        if kinds[-1] == "grey":
            deviations.append(255 * noise[0].std().item())
    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    assert shares["grey"] == pytest.approx(0.4, abs=0.08)
    assert shares["mixed"] == pytest.approx(0.2, abs=0.07)
    assert kstest([(value - 5) / 15 for value in deviations], "uniform").pvalue > 0.01


def test_how_often_steps_do_nothing(photo):
    counts = {}
    for step, (name, share) in itertools.product(
        range(200), {"_reduced": 0.75, "_sensed": 0.25, "_maybe_compressed": 0.9}.items()
    ):
        degrade = getattr(module, name, None) or getattr(ShuffledDegradation(), name)
        changed = degrade(photo[..., :16, :16], torch.Generator().manual_seed(step))
        same = changed.shape == photo[..., :16, :16].shape and torch.equal(changed, photo[..., :16, :16])
        counts.setdefault((name, share), []).append(not same)
    for (_, share), changed in counts.items():
        assert sum(changed) / len(changed) == pytest.approx(share, abs=0.09)


def test_it_ends_as_a_jpeg_of_the_same_size(photo):
    degradation = ShuffledDegradation(seed=0)
    for size in ((64, 80), (1, 1), (5, 33)):
        degraded = degradation(photo[..., : size[0], : size[1]])
        assert degraded.shape[-2:] == size
        levels = 255 * degraded
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
        assert degraded.min() >= 0


def test_wrong_input():
    with pytest.raises(ArgumentError, match="`noise` must be two numbers from 0 to 255"):
        ShuffledDegradation(noise=(25, 1))
    with pytest.raises(ArgumentError, match="`jpeg` must be two whole numbers from 1 to 100"):
        ShuffledDegradation(jpeg=(0, 50))
    with pytest.raises(ShapeError, match="expected RGB images and one draw for each"):
        ShuffledDegradation()(torch.rand(1, 1, 8, 8))
