"""The table of kernels: hand-computed entries, mass, symmetry, and its compressed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reblurkit.blur import kernel_table
from reblurkit.blur.table import merged_cells
from reblurkit.errors import ArgumentError

RASTERISATIONS = ["line", "nearest", "area", "bilinear"]


def entry(table, u, v):
    """Non-zero taps ``{(x, y): weight}`` of one flow."""
    m = len(table) // 2
    kernel = table[v + m, u + m]
    return {(x - m, y - m): round(kernel[y, x].item(), 12) for y, x in kernel.nonzero().tolist()}


def test_entries_by_hand():
    table = kernel_table(3)
    assert entry(table, 0, 0) == {(0, 0): 1}
    assert entry(table, 1, 0) == {(0, 0): 0.5, (1, 0): 0.5}
    assert entry(table, 0, -2) == {(0, 0): 0.25, (0, -1): 0.5, (0, -2): 0.25}
    assert entry(table, 2, 1) == {(0, 0): 0.25, (1, 0): 0.25, (1, 1): 0.25, (2, 1): 0.25}
    assert entry(table, 2, -2) == {(0, 0): 0.25, (1, -1): 0.5, (2, -2): 0.25}
    assert entry(kernel_table(3, "nearest"), -2, 1) == {(0, 0): 0.25, (-1, 1): 0.5, (-2, 1): 0.25}
    # The segment to (2, 1) leaves the first square at 1/4 of its way, crosses y = 1/2 at 1/2 and x = 3/2 at 3/4.
    assert entry(kernel_table(3, "area"), 2, 1) == {(0, 0): 0.25, (1, 0): 0.25, (1, 1): 0.25, (2, 1): 0.25}
    # Along a diagonal the bilinear weights are quadratic: integrals of (1 - t)^2, t (1 - t) and t^2.
    third, sixth = pytest.approx(1 / 3), pytest.approx(1 / 6)
    assert entry(kernel_table(3, "bilinear"), 1, 1) == {(0, 0): third, (1, 0): sixth, (0, 1): sixth, (1, 1): third}


@pytest.mark.parametrize("rasterisation", RASTERISATIONS)
def test_every_entry_is_one_segment_of_mass_one(rasterisation):
    table = kernel_table(9, rasterisation)
    assert table.shape == (19, 19, 19, 19)
    assert table.dtype == torch.float64
    assert (table >= 0).all()
    torch.testing.assert_close(table.sum(dim=(2, 3)), torch.ones(19, 19, dtype=torch.float64), rtol=0, atol=1e-14)
    place = torch.arange(-9.0, 10, dtype=torch.float64)
    if rasterisation != "nearest":
        # The centre of mass is the middle of the segment.
        tolerance = {"rtol": 0, "atol": 0.5 if rasterisation == "area" else 1e-13}
        torch.testing.assert_close((table * place).sum(dim=(2, 3)), (place / 2).expand(19, 19), **tolerance)
    symmetry = {"rtol": 0, "atol": 1e-15}
    torch.testing.assert_close(table.flip(0, 1, 2, 3), table, **symmetry)
    torch.testing.assert_close(table.permute(1, 0, 3, 2), table, **symmetry)


def test_the_bilinear_table_is_the_limit_of_many_samples():
    u, v = 7, -3
    time = (np.arange(4000) + 0.5) / 4000
    x, y = u * time, v * time
    expected = np.zeros((19, 19))
    for down in (0, 1):
        for right in (0, 1):
            column, line = np.floor(x) + right, np.floor(y) + down
            weight = (1 - abs(x - column)) * (1 - abs(y - line)) / 4000
            np.add.at(expected, (line.astype(int) + 9, column.astype(int) + 9), weight)
    np.testing.assert_allclose(kernel_table(9, "bilinear")[v + 9, u + 9], expected, atol=1e-7)


@pytest.mark.parametrize("max_flow", [1, 3, 16])
def test_merged_cells_interpolate_the_table(max_flow):
    table, cells = kernel_table(max_flow), merged_cells(max_flow, torch.float64, torch.device("cpu"))
    side = 2 * max_flow
    assert len(cells.start) == side**2 + 1
    assert cells.start[-1] == len(cells.x) == len(cells.y) == len(cells.coefficients)
    for cell in range(0, side**2, 7):
        j, i = divmod(cell, side)
        a, b = 0.3, 0.6
        corners = table[j, i], table[j, i + 1], table[j + 1, i], table[j + 1, i + 1]
        weights = (1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b
        expected = sum(weight * corner for weight, corner in zip(weights, corners, strict=True)) / 2
        taps = slice(cells.start[cell], cells.start[cell + 1])
        kernel = torch.zeros_like(expected)
        basis = torch.tensor([1, a, b, a * b], dtype=torch.float64)
        kernel[cells.y[taps] + max_flow, cells.x[taps] + max_flow] = cells.coefficients[taps] @ basis
        torch.testing.assert_close(kernel, expected, rtol=0, atol=1e-15)


def test_bad_tables_are_named():
    with pytest.raises(ArgumentError, match="`max_flow` must be a whole number"):
        kernel_table(0)
    with pytest.raises(ArgumentError, match="`rasterisation` must be one of"):
        kernel_table(2, "bresenham")
