from __future__ import annotations

import numpy as np
import pytest
import torch

from reblurkit.errors import ArgumentError
from reblurkit.pictures import comparison_grid
from reblurkit.pictures.grid import textured_window


def test_images_stand_side_by_side_in_their_colours():
    red, green = (torch.tensor(c).view(3, 1, 1).expand(3, 40, 60) for c in ([1.0, 0, 0], [0, 1.0, 0]))
    grid = np.asarray(comparison_grid([{"red": red, "green": green}], width=120, detail=20))
    left, right = np.array_split(grid[40:], 2, axis=1)
    assert ((left == (255, 0, 0)).all(-1)).mean() > 0.8
    assert ((right == (0, 255, 0)).all(-1)).mean() > 0.8


def test_the_detail_shows_where_texture_was_gained_if_asked_for():
    before = torch.full((3, 96, 192), 0.5)
    before[:, 48:, 96:] = torch.rand(3, 48, 96)  # texture that stays
    after = before.clone()
    after[:, :48, :96] += 0.2 * torch.rand(3, 48, 96)
    left, top, _, _ = textured_window(after, 96)
    assert left > 90
    assert top > 40
    left, top, right, bottom = textured_window(after, 96, before)
    assert max(left, top) <= 1
    assert (right - left, bottom - top) == (96, 48)
    grid = np.asarray(comparison_grid([{"before": before, "after": after}], width=192, detail=96, gained=True))
    assert (grid[-8 - 96 : -8, 8:200] == 128).mean() > 0.9  # the detail of the flat part, before


def test_where_nothing_was_gained_the_detail_shows_the_most_texture():
    image = torch.full((3, 96, 192), 0.5)
    image[:, 48:, 96:] = torch.rand(3, 48, 96)
    assert textured_window(image, 96, image) == textured_window(image, 96)
    assert textured_window(0.9 * image, 96, image) == textured_window(0.9 * image, 96)


def test_the_detail_shows_where_the_last_image_has_texture():
    flat = torch.full((3, 64, 64), 0.5)
    textured = flat.clone()
    textured[:, 40:56, 8:40] = torch.rand(3, 16, 32)
    grid = np.asarray(comparison_grid([{"a": flat, "b": textured}], width=128, detail=32))
    detail = grid[-8 - 64 : -8, 8 + 128 + 8 : -8]
    assert (detail[::4, ::4] != 128).mean() > 0.9


def test_small_images_and_several_rows():
    rows = [{"a": torch.rand(3, *size)} for size in ((5, 4), (100, 80))]
    assert comparison_grid(rows, width=50).width == 50 + 2 * 8


def test_images_of_one_row_or_one_column():
    for size in ((1, 1), (1, 3000), (3000, 1)):
        grid = comparison_grid([{"a": torch.rand(3, *size)}], width=50, gained=True)
        assert grid.width == 50 + 2 * 8
        assert grid.height < 50 * 22 + 100


def test_rows_need_equal_titles():
    image = torch.rand(3, 20, 20)
    with pytest.raises(ArgumentError, match="same titles"):
        comparison_grid([{"a": image}, {"b": image}])
    with pytest.raises(ArgumentError, match="at least one row"):
        comparison_grid([])
