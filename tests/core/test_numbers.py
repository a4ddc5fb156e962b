"""Numbers among the arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reblurkit.core.numbers import check_not_negative, check_positive, check_span, check_whole
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
    check_not_negative(weight=0, other=1e30)
    check_span(0, 1, share=(0, 1.0), other=[0.5, 0.5])


def test_numbers_of_numpy_are_numbers_and_its_truth_values_are_none():
    check_positive(gain=np.float32(1), other=np.int64(1))
    check_not_negative(weight=np.float32(0), other=np.uint8(0))
    check_whole(samples=np.int64(1))
    check_span(1, 100, whole=True, jpeg=(np.int64(30), 95))
    with pytest.raises(ArgumentError, match=r"but is np.float32\(-1.0\)$"):
        check_not_negative(weight=np.float32(-1))
    with pytest.raises(ArgumentError, match=r"but is np.float32\(inf\)$"):
        check_not_negative(weight=np.float32("inf"))
    for value in (np.bool_(True), np.float32(1), np.array(1)):
        with pytest.raises(ArgumentError, match="`samples` must be a whole number"):
            check_whole(samples=value)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "9", None])
def test_what_is_no_weight(value):
    with pytest.raises(ArgumentError, match="`weight` must be at least 0 and finite, but is"):
        check_not_negative(weight=value)


@pytest.mark.parametrize("value", [3, (1,), (2, 1), (-1, 1), (0, float("inf")), (float("nan"), 1), ("0", 1), None])
def test_what_is_no_span(value):
    with pytest.raises(ArgumentError, match="`saturation` must be two numbers from 0, the smaller one first, but is"):
        check_span(0, saturation=value)
    with pytest.raises(ArgumentError, match="`jpeg` must be two whole numbers from 1 to 100, the smaller one first"):
        check_span(1, 100, whole=True, jpeg=(30.0, 95.0))
