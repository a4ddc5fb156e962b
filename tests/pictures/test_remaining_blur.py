from __future__ import annotations

import numpy as np
import pytest
import torch
from kornia.filters import filter2d, get_motion_kernel2d
from skimage import data

from reblurkit.errors import ArgumentError
from reblurkit.metrics import remaining_blur_kernel, spread
from reblurkit.pictures import comparison_grid, remaining_blur_figure


def corner(picture, column, side, width=120, height=120):
    """What is drawn inside the frame of a column's lower right corner."""
    right, below = 8 + column * (width + 8) + width, 30 + height
    return np.asarray(picture.convert("L"))[below - 2 - side : below - 2, right - 2 - side : right - 2] / 255


def test_a_kernel_is_drawn_in_its_corner():
    image, kernel = torch.zeros(3, 60, 60), torch.zeros(5, 5)
    kernel[1, 3], kernel[2, 2] = 0.5, 0.25
    picture = comparison_grid([{"a": image, "b": image}], kernels=[{"b": kernel}], width=120)
    drawn = corner(picture, 1, 40).reshape(5, 8, 5, 8).mean((1, 3))
    np.testing.assert_allclose(drawn, kernel / 0.5, atol=0.01)
    assert corner(picture, 0, 40).max() < 0.1
    with pytest.raises(ArgumentError, match="with titles of the grid"):
        comparison_grid([{"a": image}], kernels=[{"c": kernel}])
    with pytest.raises(ArgumentError, match="for each row"):
        comparison_grid([{"a": image}], kernels=[])


def test_the_blur_that_remains_is_drawn():
    sharp = torch.from_numpy(data.astronaut()[:220, 150:370].copy()).permute(2, 0, 1)[None] / 255
    blurry = filter2d(sharp, get_motion_kernel2d(9, 0.0))
    row = {"blurry": blurry[0], "sharp again": sharp[0], "sharp": sharp[0]}
    picture = remaining_blur_figure([row], size=9, width=120)
    streak, dot = (corner(picture, column, 36).reshape(9, 4, 9, 4).mean((1, 3)) for column in (0, 1))
    assert streak[4].min() > 0.7
    assert np.delete(streak, 4, 0).max() < 0.3
    assert dot[4, 4] == 1
    assert dot.sum() < 1.1
    assert spread(remaining_blur_kernel(blurry, sharp, 9)).item() == pytest.approx(2.58, abs=0.05)
