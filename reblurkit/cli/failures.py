"""What a user of the command line is told of errors: one line, in the words of the command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from reblurkit.core.terminal import printable
from reblurkit.errors import ReblurkitError


def tell(line: str) -> None:
    """Print a line of news."""
    print(f"reblurkit: {printable(line)}", file=sys.stderr)


def list_failures(lines: Sequence[str], options: argparse.Namespace) -> None:
    """Say which inputs failed, and why."""
    for line in lines:
        tell(f"failed: {with_options(line, options)}")


def with_options(message: str, options: argparse.Namespace | None) -> str:
    """A message in which arguments of functions, in backticks, are named by the options that they came from."""
    known = vars(options) if options is not None else {}

    def named(match: re.Match[str]) -> str:
        return f"--{match[1].replace('_', '-')}" if match[1] in known else match[0]

    return re.sub(r"`(\w+)`", named, message)


def last_cause(error: ReblurkitError) -> str:
    """The message in one line; of an error from a loader's worker process, the line that says what was wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if "Original Traceback" not in str(error):
        return " ".join(line.strip() for line in lines)
    return lines[-1].split(": ", 1)[-1]
