from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.utils import flow_to_image

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.losses.flow_reblur import FlowReblurTerms
from reblurkit.pictures.motion import error_map, flow_colours, motion_figure


def test_flow_has_torchvisions_colours_with_the_scale_that_is_given():
    flow = torch.randn(1, 2, 9, 12)
    longest = float(flow.norm(dim=1).max())
    expected = flow_to_image(flow) / 255
    torch.testing.assert_close(flow_colours(flow, longest), expected, atol=1.5 / 255, rtol=0)
    # the same flow among longer ones, as torchvision scales a batch, is drawn with the scale of the longest
    together = flow_to_image(torch.cat((flow, 3 * flow)))[:1] / 255
    torch.testing.assert_close(flow_colours(flow, 3 * longest), together, atol=1.5 / 255, rtol=0)


def test_long_flow_is_cut_and_flow_that_is_not_finite_is_black():
    flow = torch.zeros(1, 2, 1, 3)
    flow[0, 0] = torch.tensor([4.0, 40.0, torch.nan])
    colours = flow_colours(flow, 4.0)
    assert torch.equal(colours[..., 0], colours[..., 1])
    assert colours[..., 2].eq(0).all()
    with pytest.raises(ArgumentError, match="`scale` must be a finite number greater than 0"):
        flow_colours(flow, 0)
    with pytest.raises(ShapeError, match=r"\(B, 2, H, W\)"):
        flow_colours(flow[0], 1)


def test_error_map_is_white_where_wrong_and_blue_where_not_looked_at():
    observed = torch.full((1, 3, 1, 3), 0.5)
    reblurred = observed + torch.tensor([0.0, 0.3, 0.3])
    mask = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    colours = error_map(reblurred, observed, mask)[0, :, 0].T.tolist()
    assert colours[:2] == [[0, 0, 0], [1, 1, 1]]
    assert colours[2] == pytest.approx([0.1, 0.2, 0.6])


def terms(flow, deblurred):
    mask = torch.ones(len(flow), 1, *flow.shape[2:], dtype=torch.bool)
    return FlowReblurTerms(torch.zeros(()), deblurred, deblurred, flow, -flow, mask)


def test_flows_before_and_after_are_drawn_in_one_scale():
    image = torch.rand(2, 3, 40, 60)
    right = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, 40, 60)
    picture = np.asarray(motion_figure(terms(right, image), terms(2 * right, image), image))
    assert picture.shape[1] == 7 * (270 + 8) + 8
    before, after = picture[40:100, 200:270], picture[40:100, 478:548]
    # minus the flow is what is drawn of the previous frame: to the left; the shorter one is paler
    expected = flow_colours(-2 * right[:1], 6.0)[0, :, 0, 0] * 255
    assert np.abs(np.median(after, (0, 1)) - expected.numpy()).max() <= 1.5
    assert np.median(before, (0, 1)).min() > np.median(after, (0, 1)).min()


def test_wild_flow_does_not_stop_the_drawing():
    image, flow = torch.rand(1, 3, 20, 20), torch.full((1, 2, 20, 20), torch.nan)
    assert motion_figure(terms(flow, image), terms(flow, image), image).size[0] > 0
