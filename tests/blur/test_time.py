"""Exposure and averaging, by hand."""

from __future__ import annotations

import pytest
import torch

from reblurkit.blur import average_frames, exposure_from
from reblurkit.errors import ArgumentError, ShapeError


def test_exposure_is_half_the_open_time_in_frame_intervals():
    assert exposure_from(window=9, stride=9) == 0.5
    assert exposure_from(window=9, stride=18) == 0.25
    assert exposure_from(shutter=1 / 48, fps=24) == pytest.approx(0.25)
    assert exposure_from(shutter=1 / 30, fps=30) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"window": 9}, {"window": 9, "fps": 24}, {"window": 9, "stride": 9, "fps": 24},
     {"shutter": 0.1}, {"window": 0, "stride": 9}, {"window": 9, "stride": 0},
     {"shutter": -0.1, "fps": 24}, {"shutter": 0.1, "fps": float("nan")}],
    ids=str,
)  # fmt: skip
def test_exposure_needs_one_pair_of_positive_numbers(arguments):
    with pytest.raises(ArgumentError, match=r"`window` and `stride`|must be a (whole|finite) number"):
        exposure_from(**arguments)


def test_averaging():
    frames = torch.rand(2, 9, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(average_frames(frames), sum(frames.unbind(1)) / 9)
    linear = sum(frame**2.2 for frame in frames.unbind(1)) / 9
    torch.testing.assert_close(average_frames(frames, gamma=2.2), linear ** (1 / 2.2))
    torch.testing.assert_close(average_frames(frames[:, :1], gamma=2.2), frames[:, 0])
    assert average_frames(torch.full((1, 2, 1, 1, 1), -0.01), gamma=2.2).item() == 0


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_averaging_names_bad_input(gamma):
    with pytest.raises(ShapeError, match="must be clips"):
        average_frames(torch.rand(2, 3, 4, 4))
    with pytest.raises(ArgumentError, match="floating point"):
        average_frames(torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ArgumentError, match="`gamma` must be"):
        average_frames(torch.rand(1, 2, 3, 4, 4), gamma=gamma)


def test_averages_do_not_depend_on_threads_and_batches():
    frames, before = torch.rand(5, 3, 3, 61, 83), torch.get_num_threads()
    try:
        averages = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            averages += [
                average_frames(frames, gamma=2.2),
                torch.cat([average_frames(one, 2.2) for one in frames.split(1)]),
            ]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(average, averages[0]) for average in averages)
