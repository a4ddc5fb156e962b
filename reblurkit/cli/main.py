"""The ``reblurkit`` command.

Nothing heavy is imported before the command line is known to need it: ``reblurkit --help`` must answer at once.
"""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Sequence

from reblurkit.cli.commands import command_parser
from reblurkit.cli.ending import listening
from reblurkit.cli.failures import last_cause, tell, with_options
from reblurkit.cli.missing_files import check_current_folder, check_inputs, check_named_files
from reblurkit.cli.search_path import add_users_folder
from reblurkit.cli.words import TRAINER_COMMANDS
from reblurkit.core.terminal import printable_warnings
from reblurkit.errors import ReblurkitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; default: the process's own.

    Returns:
        Exit status: 0 on success, 1 where some inputs failed and were listed, 2 on bad usage or bad input, with one
        line on stderr, 130 when interrupted, 143 when terminated (SIGTERM), 129 when its terminal is closed (SIGHUP).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    status = 0
    with listening() as told:
        try:
            status = _run(words, debug=debug)
        except BaseException as error:
            told.over()
            if isinstance(error, KeyboardInterrupt):
                told.signal = told.signal or signal.SIGINT
            if debug or told.signal is None:
                raise
        if told.signal is None:
            return status
        tell(told.word)
        return told.status


def _run(words: Sequence[str], *, debug: bool) -> int:
    options: argparse.Namespace | None = None
    try:
        with printable_warnings():
            check_current_folder()
            check_named_files(words)
            add_users_folder(words)
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
        tell(f"error: {with_options(last_cause(error), options)}")
        return 2
    except OSError as error:
        # a training of hours keeps its traceback
        if debug or words[0] in TRAINER_COMMANDS or (error.filename is None and error.errno != errno.ENOSPC):
            raise
        tell(f"error: cannot use {error.filename or 'the disk'}: {error.strerror}")
        return 2
