"""How words are parsed: a parser that says what was meant, and the kinds of numbers that options take."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from typing import Any, NoReturn

from reblurkit.cli.words import NEGATIVE_NUMBER
from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import ArgumentError


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and asks what was meant where a word is not known."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **{**keywords, "allow_abbrev": False})
        self._negative_number_matcher = NEGATIVE_NUMBER

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Unknown options are named before missing ones: a required one may be among them, mistyped."""
        for word in itertools.takewhile(lambda word: word != "--", args or ()):
            name = word.partition("=")[0]
            if self._subparsers is None and name.startswith("--") and name not in self._option_string_actions:
                self.error(f"unknown option {name}{did_you_mean(name, self._option_string_actions)}")
        found, left = super().parse_known_args(args, namespace)
        if left and self._subparsers is None:  # else the command above it would point to its own help
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found, left

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.metavar == "COMMAND" and action.choices is not None and value not in action.choices:
            self.error(f"unknown command {value}{did_you_mean(value, action.choices)}")
        elif action.choices is not None and value not in action.choices:
            choices = f"{', '.join(list(action.choices)[:-1])} or {list(action.choices)[-1]}"
            near = did_you_mean(str(value), action.choices)
            raise argparse.ArgumentError(action, f"must be {choices}, but is {value}{near}")
        super()._check_value(action, value)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            if action.type not in (int, float):
                raise
            kind = "a whole number" if action.type is int else "a number"
            raise argparse.ArgumentError(action, f"must be {kind}, but is {arg_string[:40]}") from error

    def error(self, message: str) -> NoReturn:
        """Raise what the command line tells in one line."""
        raise ArgumentError(f"{message}; `{self.prog} --help` lists what there is")


def seed(text: str) -> int:
    """A whole number of 32 bits."""
    if not re.fullmatch(r"\d{1,10}", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**32 - 1}, but is {text[:40]}")
    return int(text)


def steps(text: str) -> int:
    """A whole number, at least 0."""
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 0, but is {text[:40]}")
    return int(text)


def scales(text: str) -> int:
    """A number of sizes that ``MultiScale`` takes."""
    if not re.fullmatch(r"[1-5]", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 5, but is {text[:40]}")
    return int(text)


def rate(text: str) -> float:
    """A number above 0."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, such as 3e-6, but is {text[:40]}")
    return rate


def fraction(text: str) -> float:
    """A number, or a fraction as photographers write it: 1/50."""
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(
            f"must be a number or a fraction, such as 0.02 or 1/50, but is {text[:40]}"
        ) from error


def tile(text: str) -> int | str:
    """A number of pixels, or auto."""
    if text != "auto" and not re.fullmatch(r"-?\d+", text):
        raise argparse.ArgumentTypeError(f"must be a number of pixels or auto, but is {text!r}")
    return text if text == "auto" else int(text)
