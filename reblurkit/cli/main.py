"""The ``reblurkit`` command.

Nothing heavy is imported before the command line is known to need it: ``reblurkit --help`` must answer at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from reblurkit.cli.commands import command_parser
from reblurkit.cli.ending import listening
from reblurkit.cli.failures import last_cause, with_options
from reblurkit.cli.missing_files import check_inputs, check_named_files
from reblurkit.cli.words import TRAINER_COMMANDS
from reblurkit.errors import ReblurkitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; default: the process's own.

    Returns:
        Exit status: 0 on success, 1 where some inputs failed and were listed, 2 on bad usage or bad input, with one
        line on stderr, 130 when interrupted, 143 when terminated (SIGTERM).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    status = 0
    with listening() as told:
        try:
            status = _run(words, debug=debug)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                told.signal = told.signal or signal.SIGINT
            if debug or told.signal is None:
                raise
        if told.signal is None:
            return status
        print(f"reblurkit: {told.word}", file=sys.stderr)
        return told.status


def _run(words: Sequence[str], *, debug: bool) -> int:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # users' own classes, as `python -m` would find them
    options: argparse.Namespace | None = None
    try:
        check_named_files(words)
        if words and words[0] in TRAINER_COMMANDS:
            from reblurkit.cli.trainer import run_lightning_cli

            run_lightning_cli(words)
            return 0
        options = command_parser(words).parse_args(words)
        check_inputs(options)
        return options.run(options) or 0
    except ReblurkitError as error:
        if debug:
            raise
        print(f"reblurkit: error: {with_options(last_cause(error), options)}", file=sys.stderr)
        return 2
    except OSError as error:
        # a training of hours keeps its traceback
        if debug or error.filename is None or words[0] in TRAINER_COMMANDS:
            raise
        print(f"reblurkit: error: cannot use {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
