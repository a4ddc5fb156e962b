"""The sensor: Malvar's demosaicing pixel by pixel, and noise that has the variance it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from reblurkit.blur.camera import Camera, demosaic, photograph

PHASES = [(0, 0), (0, 1), (1, 0), (1, 1)]
# Figure 2 of Malvar, He and Cutler, times 8.
GREEN = np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]])
ROW = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]])
OPPOSITE = np.array([[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]])


def colour(y, x, phase):
    down, right = (y - phase[0]) % 2, (x - phase[1]) % 2
    return "RG"[right] if down == 0 else "GB"[right]


def written_out(raw, phase):
    padded, image = np.pad(raw, 2, mode="reflect"), np.zeros((3, *raw.shape))
    for y in range(raw.shape[0]):
        for x in range(raw.shape[1]):
            window, own = padded[y : y + 5, x : x + 5], colour(y, x, phase)
            beside = colour(y, x + 1, phase)
            for index, wanted in enumerate("RGB"):
                if wanted == own:
                    image[index, y, x] = raw[y, x]
                    continue
                if wanted == "G":
                    kernel = GREEN
                elif own == "G":
                    kernel = ROW if beside == wanted else ROW.T
                else:
                    kernel = OPPOSITE
                image[index, y, x] = (window * kernel).sum() / 8
    return image


@pytest.mark.parametrize("phase", PHASES)
def test_demosaicing_is_malvars(phase):
    raw = torch.rand(9, 12, dtype=torch.float64)
    np.testing.assert_allclose(demosaic(raw, phase), written_out(raw.numpy(), phase), atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2)])
def test_the_smallest_images(size):
    raw = torch.full(size, 0.3)
    torch.testing.assert_close(demosaic(raw, (0, 0)), torch.full((3, *size), 0.3))


def drawn(seed):
    return Camera.drawn(torch.Generator().manual_seed(seed))


def test_cameras_differ_and_keep_white():
    cameras = [drawn(seed) for seed in range(40)]
    for camera in cameras:
        torch.testing.assert_close(camera.matrix.sum(1), torch.ones(3, dtype=torch.float64))
        assert 1.9 <= camera.gains[0] <= 2.4
        assert 1.5 <= camera.gains[1] <= 1.9
    assert {camera.phase for camera in cameras} == set(PHASES)
    assert len({camera.gains for camera in cameras}) == 40


def test_without_noise_smooth_colours_come_back():
    """Inverse and forward processing cancel; demosaicing is exact where all colours are the same plane."""
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in (20, 24)), indexing="ij")
    light = (0.2 + 0.01 * x + 0.02 * y).expand(3, -1, -1)
    taken = photograph(light, drawn(1), 0.0, 0.0, torch.Generator())
    torch.testing.assert_close(taken[:, 2:-2, 2:-2], light[:, 2:-2, 2:-2], rtol=0, atol=1e-12)
    photo = torch.from_numpy(data.astronaut()[:100, :100].copy()).permute(2, 0, 1).double() / 255
    assert (photograph(photo, drawn(2), 0.0, 0.0, torch.Generator()) - photo).abs().mean() < 0.02


@pytest.mark.parametrize(("shot", "read"), [(0.05, 0.0), (0.0, 0.02), (0.04, 0.01)])
def test_noise_before_demosaicing_has_the_stated_variance(shot, read):
    """With the identity for colours a grey picture holds the raw values, red and blue ones times their gain."""
    camera = Camera(torch.eye(3, dtype=torch.float64), (2.0, 1.5), (0, 0))
    light = torch.full((3, 200, 200), 0.4, dtype=torch.float64)
    taken = photograph(light, camera, shot, read, torch.Generator().manual_seed(0))
    for index, (place, gain) in enumerate([((0, 0), 2.0), ((0, 1), 1.0), ((1, 1), 1.5)]):
        values = taken[index, place[0] :: 2, place[1] :: 2]
        expected = gain**2 * (read**2 + shot**2 * 0.4 / gain)
        assert values.var().item() == pytest.approx(expected, rel=0.06)
        assert values.mean().item() == pytest.approx(0.4, abs=4 * (expected / 10_000) ** 0.5)


def test_noise_is_coarse_as_after_demosaicing():
    """Neighbours share noise; noise that is added to the picture would not."""
    light = torch.full((3, 128, 128), 0.4, dtype=torch.float64)
    noise = photograph(light, drawn(3), 0.05, 0.0, torch.Generator().manual_seed(0)) - light
    for channel in (noise[0], noise[2]):
        together = (channel[:, 1:] * channel[:, :-1]).mean() / channel.square().mean()
        assert together > 0.3
