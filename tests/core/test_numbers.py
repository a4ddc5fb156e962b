"""Numbers among the arguments."""

from __future__ import annotations

import pytest
import torch

from reblurkit.core.numbers import check_positive, check_whole
from reblurkit.errors import ArgumentError


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "9", None, torch.tensor(1.0)])
def test_what_is_no_number_above_zero(value):
    with pytest.raises(ArgumentError, match=r"`gain` must be a finite number of dB greater than 0, but is .*; leave"):
        check_positive(gain=value, unit=" of dB", hint="; leave it out")


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "9", None, 2**31])
def test_what_is_no_whole_number(value):
    with pytest.raises(ArgumentError, match="`samples` must be a whole number"):
        check_whole(samples=value)


def test_numbers_that_are_right():
    check_positive(gain=1, other=1e-30)
    check_whole(samples=1, other=2**31 - 1)
