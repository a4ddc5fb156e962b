from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter, shift
from skimage.data import astronaut
from torch import nn

from reblurkit.blur import FlowKernelBlur, FlowLineBlur, FlowWarpBlur
from reblurkit.errors import ShapeError
from reblurkit.losses import flow_reblur_loss
from reblurkit.losses.flow_reblur import flow_reblur_terms
from tests.conftest import TinyFlow


class KnownFlow(nn.Module):
    """Gives (u, v) from the earlier frame to the later, and the opposite the other way round."""

    def __init__(self, u, v, first):
        super().__init__()
        self.flow = torch.tensor([u, v], dtype=torch.float64).view(1, 2, 1, 1)
        self.first = first

    def forward(self, source, target):
        batch, _, height, width = source.shape
        sign = 1 if torch.equal(source, self.first) else -1
        return (sign * self.flow).to(source).expand(batch, 2, height, width)


def moving_clip(u, v, samples=201, size=96):
    """Three sharp frames of steady motion (u, v) a frame, and the time average of the middle one's interval."""
    photo = astronaut()[60:260, 60:260].astype(float) / 255

    def at(time):
        moved = shift(photo, (v * time, u * time, 0), order=3, mode="nearest")
        start = (200 - size) // 2
        return torch.from_numpy(moved[start : start + size, start : start + size]).permute(2, 0, 1)

    frames = torch.stack([at(time) for time in (-1, 0, 1)])[None]
    # The trapezoid rule over [-1/2, 1/2]: exposure 0.5.
    times = torch.linspace(-0.5, 0.5, samples)
    weights = torch.ones(samples, dtype=torch.float64)
    weights[[0, -1]] = 0.5
    blurry = sum(weight * at(float(time)) for weight, time in zip(weights / weights.sum(), times, strict=True))
    return frames, blurry[None]


@pytest.mark.parametrize("blur", [FlowLineBlur(0.5), FlowKernelBlur(0.5), FlowWarpBlur(0.5, samples=32)])
@pytest.mark.parametrize("frames", [2, 3])
def test_loss_is_least_at_the_sharp_frame(blur, frames):
    clip, blurry = moving_clip(8.0, 4.0, samples=25)
    flow = KnownFlow(8.0, 4.0, clip[:, 0])

    def loss(centre):
        changed = clip.clone()
        changed[:, 1] = centre
        return flow_reblur_loss(changed[:, :frames], blurry, flow, blur=blur).item()

    sharp = clip[0, 1].permute(1, 2, 0).numpy()
    soft = torch.from_numpy(gaussian_filter(sharp, (1.0, 1.0, 0))).permute(2, 0, 1)
    at_sharp = loss(clip[:, 1])
    assert at_sharp < 1e-4
    assert loss(soft[None]) > 1.5 * at_sharp
    assert loss(blurry) > 1.5 * at_sharp
    assert loss(2 * clip[:, 1] - soft[None]) > 1.5 * at_sharp
    assert loss(clip[:, 1].roll(1, -1)) > 1.5 * at_sharp
    assert loss(clip[:, 1].roll(1, -2)) > 1.5 * at_sharp


@pytest.mark.parametrize("blur", [FlowLineBlur(0.7), FlowKernelBlur(0.7)])
@pytest.mark.parametrize("frames", [2, 3])
def test_gradients_of_both_networks(blur, frames):
    """The loss as a function of every weight of a tiny deblurring and a tiny flow network."""
    torch.manual_seed(0)
    deblur, flow = nn.Conv2d(3, 3, 3, padding=1).double(), TinyFlow().double()
    clip = torch.rand(1, frames, 3, 5, 6, dtype=torch.float64)

    def loss(*weights):
        weight, bias, flow_weight, flow_bias = weights
        deblurred = nn.functional.conv2d(clip[0], weight, bias, padding=1)[None]
        network = lambda a, b: torch.func.functional_call(  # noqa: E731
            flow, {"conv.weight": flow_weight, "conv.bias": flow_bias}, (a, b)
        )
        return flow_reblur_loss(deblurred, clip[:, 1], network, blur=blur, mask=False)

    assert torch.autograd.gradcheck(loss, [*deblur.parameters(), *flow.parameters()])


def test_detach_cuts_the_way_through_the_motion():
    torch.manual_seed(0)
    flow = TinyFlow()
    frames = torch.rand(1, 3, 3, 8, 8, requires_grad=True)
    blurry = torch.rand(1, 3, 8, 8)
    flow_reblur_loss(frames, blurry, flow, blur=FlowLineBlur(0.5), mask=False, detach=True).backward()
    assert flow.conv.weight.grad.abs().sum() > 0
    assert frames.grad[:, 1].abs().sum() > 0
    assert (frames.grad[:, [0, 2]] == 0).all()


class ConstantFlow(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = nn.Parameter(flow)

    def forward(self, source, target):
        return self.flow.expand(source.shape[0], 2, *source.shape[2:])


@pytest.mark.parametrize("blur", [FlowKernelBlur(), FlowLineBlur(0.5), FlowWarpBlur(0.5)])
def test_no_term_is_spoilt_by_flow_that_is_not_finite(blur):
    flow = torch.rand(1, 2, 6, 8)
    flow[:, 1, 2, 3] = torch.nan
    flow[:, 0, 4, 4] = torch.inf
    network = ConstantFlow(flow)
    frames = torch.rand(1, 3, 3, 6, 8, requires_grad=True)
    options = {"photometric": 1.0, "smoothness": 1.0, "consistency": True}
    loss = flow_reblur_loss(frames, torch.rand(1, 3, 6, 8), network, blur=blur, **options)
    loss.backward()
    assert loss.isfinite()
    assert frames.grad.isfinite().all()
    assert network.flow.grad.isfinite().all()


def test_pixels_out_of_range_or_not_finite_are_left_out():
    flow = torch.zeros(1, 2, 6, 8)
    flow[:, 0, 0, 0] = 100  # out of the table's range
    flow[:, 1, 2, 3] = torch.nan
    network = ConstantFlow(flow)
    frames = torch.rand(1, 3, 3, 6, 8, requires_grad=True)
    terms = flow_reblur_terms(frames, torch.rand(1, 3, 6, 8), network, blur=FlowKernelBlur())
    expected = torch.ones(6, 8, dtype=torch.bool)
    expected[0, 0] = expected[2, 3] = False
    assert torch.equal(terms.mask[0, 0], expected)
    terms.loss.backward()
    assert terms.loss.isfinite()
    assert frames.grad.isfinite().all()
    assert network.flow.grad.isfinite().all()
    assert (frames.grad[0, 1, :, 0, 0] == 0).all()


def test_left_out_pixels_count_as_equal_in_the_mean():
    flow = torch.zeros(1, 2, 4, 4)
    flow[:, 0, 0, 0] = 100
    frames, blurry = torch.zeros(1, 3, 3, 4, 4), torch.ones(1, 3, 4, 4)
    loss = flow_reblur_loss(frames, blurry, ConstantFlow(flow), blur=FlowLineBlur())
    assert loss.item() == pytest.approx(15 / 16)
    loss = flow_reblur_loss(
        frames, blurry, ConstantFlow(flow), blur=FlowLineBlur(), distance=nn.L1Loss(reduction="sum")
    )
    assert loss.item() == 45


def test_consistency_leaves_out_what_does_not_come_back():
    clip, blurry = moving_clip(4.0, 0.0, samples=3, size=24)
    there_and_back = KnownFlow(4.0, 0.0, clip[:, 0])
    terms = flow_reblur_terms(clip[:, :2], blurry, there_and_back, blur=FlowLineBlur(0.5), consistency=True)
    assert terms.mask[..., 8:-8].all()
    always_right = ConstantFlow(torch.tensor([4.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1))
    terms = flow_reblur_terms(clip[:, :2], blurry, always_right, blur=FlowLineBlur(0.5), consistency=True)
    assert not terms.mask.any()


def test_terms_for_the_flow_network_alone():
    """At the true motion the photometric term is least, and constant flow is smooth."""
    clip, blurry = moving_clip(3.0, -2.0, samples=3, size=48)

    def photometric(u, v):
        with_term, without = (
            flow_reblur_loss(clip, blurry, KnownFlow(u, v, clip[:, 0]), blur=FlowLineBlur(0.5), photometric=weight)
            for weight in (1.0, 0.0)
        )
        return (with_term - without).item()

    assert photometric(3.0, -2.0) < 0.5 * min(photometric(2.0, -2.0), photometric(3.0, -1.0), photometric(-3.0, 2.0))

    frames, observed = torch.rand(1, 2, 3, 8, 8), torch.rand(1, 3, 8, 8)

    def smoothness(flow):
        options = {"blur": FlowLineBlur(), "mask": False}
        rough, plain = (
            flow_reblur_loss(frames, observed, ConstantFlow(flow), smoothness=weight, **options)
            for weight in (1.0, 0.0)
        )
        return (rough - plain).item()

    assert smoothness(torch.full((1, 2, 8, 8), 3.0)) == pytest.approx(0, abs=1e-7)
    assert smoothness(torch.rand(1, 2, 8, 8)) > 0.001


def test_a_still_clip_is_the_identity():
    image = torch.rand(1, 1, 3, 12, 12)
    still = ConstantFlow(torch.zeros(1, 2, 12, 12))
    frames = image.expand(1, 3, 3, 12, 12)
    for blur in (FlowLineBlur(), FlowKernelBlur(), FlowWarpBlur()):
        assert flow_reblur_loss(frames, image[:, 0], still, blur=blur).item() < 1e-12


def test_wrong_input():
    flow, blur = TinyFlow(), FlowLineBlur()
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ShapeError, match=r"frames t-1, t, t\+1"):
        flow_reblur_loss(torch.rand(1, 4, 3, 8, 8), image, flow, blur=blur)
    with pytest.raises(ShapeError, match="same shape"):
        flow_reblur_loss(torch.rand(1, 3, 3, 8, 9), image, flow, blur=blur)
    with pytest.raises(ShapeError, match="must return flow in pixels at full size"):
        flow_reblur_loss(torch.rand(1, 3, 3, 8, 8), image, lambda a, b: a[..., ::4, ::4], blur=blur)
    with pytest.raises(ShapeError, match="returned list"):
        flow_reblur_loss(torch.rand(1, 3, 3, 8, 8), image, lambda a, b: [a], blur=blur)


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_deblurred_frames_that_are_not_finite_are_not_hidden(frame):
    frames = torch.rand(1, 3, 3, 32, 32)
    blurry = frames[:, 1].clone()
    frames[:, frame, :, 3, 4] = torch.nan
    loss = flow_reblur_loss(frames, blurry, TinyFlow(), blur=FlowKernelBlur(exposure=0.5))
    assert loss.isnan()
