"""Checks of numbers among the arguments, and how a value stands in a message."""

from __future__ import annotations

import math
import reprlib
import sys
from numbers import Real
from typing import Any

from reblurkit.errors import ArgumentError

_LARGEST = 3.4e38  # of single precision


def check_whole(unit: str = "", **numbers: int) -> None:
    """Check that every argument is a whole number, at least 1; neither 2.0 nor True is one.

    Args:
        unit: What is counted, for the message.
        **numbers: Values by the name that the message shall use.

    Raises:
        ArgumentError: If one is not.

    Example:
        >>> check_whole(samples=2.5)
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `samples` must be a whole number (int), at least 1 and below 2**31, but is 2.5
    """
    for name, value in numbers.items():
        if not is_number(value, int) or not 1 <= value < 2**31:
            raise ArgumentError(
                f"`{name}` must be a whole number{unit} (int), at least 1 and below 2**31, but is {shown(value)}"
            )


def check_positive(unit: str = "", hint: str = "", **numbers: float) -> None:
    """Check that every argument is a finite number greater than 0; neither "9" nor True is one.

    Args:
        unit: What is counted, for the message.
        hint: What to do, for the end of the message.
        **numbers: Values by the name that the message shall use.

    Raises:
        ArgumentError: If one is not.

    Example:
        >>> check_positive(gamma="2.2")
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `gamma` must be a finite number greater than 0, but is '2.2'
    """
    for name, value in numbers.items():
        if not is_number(value) or not 0 < without_numpy(value) <= sys.float_info.max:
            raise ArgumentError(f"`{name}` must be a finite number{unit} greater than 0, but is {shown(value)}{hint}")


def check_rate(**rates: float) -> None:
    """Check that every argument is a learning rate: greater than 0, and a number in single precision, too.

    Args:
        **rates: Values by the name that the message shall use.

    Raises:
        ArgumentError: If one is not.
    """
    check_positive("", "", **rates)
    for name, value in rates.items():
        if value > _LARGEST:
            raise ArgumentError(f"`{name}` must be at most {_LARGEST:g}, as in single precision, but is {shown(value)}")


def check_not_negative(**numbers: float) -> None:
    """Check that every argument is a finite number, at least 0; neither "9" nor True is one.

    Args:
        **numbers: Values by the name that the message shall use.

    Raises:
        ArgumentError: If one is not.

    Example:
        >>> check_not_negative(weight=-1)
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `weight` must be at least 0 and finite, but is -1
    """
    for name, value in numbers.items():
        if not is_number(value) or not 0 <= without_numpy(value) <= sys.float_info.max:
            raise ArgumentError(f"`{name}` must be at least 0 and finite, but is {shown(value)}")


def check_span(low: float, high: float = math.inf, *, whole: bool = False, **spans: tuple[float, float]) -> None:
    """Check that every argument is a pair of finite numbers within a range, the smaller one first.

    Args:
        low: Smallest number.
        high: Largest number.
        whole: Only whole numbers will do.
        **spans: Pairs by the name that the message shall use.

    Raises:
        ArgumentError: If one is not.

    Example:
        >>> check_span(0, 255, noise=(25.0, 1.0))
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `noise` must be two numbers from 0 to 255, the smaller one first, but is (25.0, 1.0)
    """  # noqa: E501
    for name, span in spans.items():
        pair = tuple(map(without_numpy, span)) if isinstance(span, (tuple, list)) else ()
        numbers = len(pair) == 2 and all(is_number(value, int if whole else (int, float)) for value in pair)
        if not numbers or not low <= pair[0] <= pair[1] <= min(high, sys.float_info.max):
            kind = "whole numbers" if whole else "numbers"
            within = f"from {low}" if high == math.inf else f"from {low} to {high}"
            given = f"({', '.join(map(shown, pair))})" if pair else shown(span)
            raise ArgumentError(f"`{name}` must be two {kind} {within}, the smaller one first, but is {given}")


def is_number(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
    """Whether a value is an int or a float, NumPy's included: True is none, and a tensor is none.

    Example:
        >>> import torch
        >>> is_number(0.5), is_number(True), is_number(torch.tensor(0.5))
        (True, False, False)
    """
    return isinstance(without_numpy(value), kind) and not isinstance(value, bool)


def without_numpy(value: Any) -> Any:
    """A value of dicts, lists and tuples in which numbers of NumPy's are Python's; all else is left as it is.

    Example:
        >>> import numpy as np
        >>> without_numpy({"lr": np.float64(0.5), "betas": (np.float32(0.5), 1)})
        {'lr': 0.5, 'betas': (0.5, 1)}
    """
    if type(value) is dict:
        return {key: without_numpy(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(without_numpy, value))
    item = getattr(value, "item", None)
    return item() if item is not None and isinstance(value, Real) else value  # NumPy registers its own


def shown(value: Any) -> str:
    """A value on one short line, for messages.

    Example:
        >>> import torch
        >>> shown("9"), shown(torch.ones(5))
        ("'9'", 'a Tensor')
    """
    plain = value is None or isinstance(value, (Real, str))
    return reprlib.repr(value) if plain else f"a {type(value).__name__}"
