"""The models against the true time average of a moving photograph, made with splines."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage

from reblurkit.blur import FlowKernelBlur, FlowLineBlur, FlowWarpBlur

MARGIN = 40


def tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def psnr(image, truth):
    return -10 * np.log10(np.mean((np.asarray(image) - np.asarray(truth)) ** 2))


@pytest.fixture(scope="module")
def photograph():
    return skimage.data.astronaut()[60:260, 100:320] / 255.0


@pytest.fixture(scope="module")
def splines(photograph):
    return [ndimage.spline_filter(photograph[..., channel], order=3, mode="mirror") for channel in range(3)]


def at(splines, y, x):
    """Cubic-spline values ``(..., 3)`` of the photograph."""
    values = [ndimage.map_coordinates(spline, [y, x], order=3, mode="mirror", prefilter=False) for spline in splines]
    return np.stack(values, axis=-1)


@pytest.fixture(scope="module")
def accelerating(photograph, splines):
    """Global motion that speeds up: velocity (5, 2) before the frame, (12, -3) after it; the true mean over time."""
    before, after = np.array([5.0, 2.0]), np.array([12.0, -3.0])
    rows, columns = np.mgrid[: photograph.shape[0], : photograph.shape[1]].astype(float)
    total, count = 0, 64
    for time in (np.arange(count) + 0.5) / count:
        # Content moves with the velocity: what is at p at time s was at p - s v at time 0.
        total = total + at(splines, rows - time * after[1], columns - time * after[0])
        total = total + at(splines, rows + time * before[1], columns + time * before[0])
    # F(t+1 -> t) points from where content is later to where it is now: against the velocity.
    flows = [torch.tensor(motion).view(1, 2, 1, 1).expand(1, 2, *rows.shape) for motion in (-after, before)]
    return flows, total / (2 * count)


def interior(image):
    return image[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


@pytest.mark.parametrize("model", [FlowKernelBlur(), FlowLineBlur()], ids=repr)
def test_accelerating_motion_blurs_as_it_should(model, photograph, accelerating):
    (flow_next, flow_prev), truth = accelerating
    truth = interior(tensor(truth))
    sharp = tensor(photograph)
    assert psnr(interior(model(sharp, flow_next, flow_prev)), truth) >= 50
    assert psnr(interior(model(sharp, -flow_next, -flow_prev)), truth) <= 25, "the flipped kernel is another blur"
    assert psnr(interior(sharp), truth) <= 25


def test_more_warps_come_closer(photograph, accelerating):
    (flow_next, flow_prev), truth = accelerating
    sharp, truth = tensor(photograph), interior(tensor(truth))
    quality = [psnr(interior(FlowWarpBlur(samples=n)(sharp, flow_next, flow_prev)), truth) for n in (1, 4, 16)]
    assert quality[0] < 25 < quality[1] < quality[2]
    halfway = FlowWarpBlur(exposure=0.5, samples=1)(sharp, flow_next, flow_prev)
    whole = FlowWarpBlur(samples=2)(sharp, flow_next, flow_prev)
    once = FlowWarpBlur(samples=1)(sharp, flow_next, flow_prev)
    torch.testing.assert_close(whole, (halfway + once) / 2)


def fractional(splines, shape, largest):
    """Independent flow per pixel, of every length and direction, and the true blur along it."""
    random = np.random.default_rng(0)
    flows = random.uniform(-largest, largest, (2, 2, *shape))
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    total, count = 0, 96
    for time in (np.arange(count) + 0.5) / count:
        for u, v in flows:
            total = total + at(splines, rows + time * v, columns + time * u)
    return [torch.from_numpy(flow)[None] for flow in flows], total / (2 * count)


def test_the_line_beats_the_table_at_fractional_flows(photograph, splines):
    flows, truth = fractional(splines, photograph.shape[:2], 16)
    sharp, truth = tensor(photograph), interior(tensor(truth))
    table, line = (psnr(interior(model(sharp, *flows)), truth) for model in (FlowKernelBlur(), FlowLineBlur()))
    assert line >= table + 1


def test_the_line_has_no_range(photograph, splines):
    flows, truth = fractional(splines, photograph.shape[:2], 60)
    sharp = tensor(photograph)
    centre = (slice(None), slice(None), slice(70, -70), slice(70, -70))
    line = psnr(FlowLineBlur()(sharp, *flows)[centre], tensor(truth)[centre])
    table = psnr(FlowKernelBlur()(sharp, *flows)[centre], tensor(truth)[centre])
    assert line >= 45
    assert table <= 30


def test_the_line_is_continuous():
    # Across every kind of seam: whole lengths, diagonals, whole positions, zero.
    image = torch.rand(1, 1, 41, 41, dtype=torch.float64)
    angle = torch.linspace(0, 2 * torch.pi, 4001, dtype=torch.float64)
    model = FlowLineBlur()
    for length in (0.0, 1e-9, 1.0, 3.0, 7.5):
        motion = length * torch.stack([angle.cos(), angle.sin()]).view(2, -1, 1, 1)
        values = []
        for scale in (1 - 1e-9, 1 + 1e-9):
            flow = (scale * motion).transpose(0, 1)
            patch = image.expand(len(flow), -1, -1, -1)[..., 10:31, 10:31]
            values.append(model(patch, flow.expand(-1, -1, 21, 21), flow.expand(-1, -1, 21, 21))[:, 0, 10, 10])
        assert (values[0] - values[1]).abs().max() < 1e-7
        assert (values[0][1:] - values[0][:-1]).abs().max() < 0.02
