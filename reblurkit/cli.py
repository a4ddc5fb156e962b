"""The ``reblurkit`` command.

Nothing heavy is imported before the command line is known to need it: ``reblurkit --help`` must answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from reblurkit import __version__
from reblurkit.errors import ReblurkitError

_LIGHTNING = {
    "fit": "train a network",
    "validate": "measure a network on the validation images",
    "test": "measure a network on the test images",
    "predict": "deblur the test images and write them as files",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; default: the process's own.

    Returns:
        Exit status: 0 on success, 2 on bad usage or bad input, with one line on stderr.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # users' own classes, as `python -m` would find them
    try:
        if words and words[0] in _LIGHTNING:
            from reblurkit.plugins.lightning_cli import run_lightning_cli

            run_lightning_cli(words)
            return 0
        options = _parser().parse_args(words)
        options.run(options)
        return 0
    except Exception as error:
        if debug or not isinstance(error, ReblurkitError):
            raise
        print(f"reblurkit: error: {_last_cause(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reblurkit",
        description="Deblurring by reblurring: train, test and use deblurring networks.",
        epilog="`reblurkit COMMAND --help` tells more. `--debug` anywhere shows the traceback of an error.",
    )
    parser.add_argument("--version", action="version", version=f"reblurkit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in _LIGHTNING.items():
        commands.add_parser(name, help=summary)  # for the help only: main() hands these to LightningCLI
    demo = commands.add_parser(
        "demo",
        help="train and compare two small networks on bundled photos, in 4 minutes",
        description="Train a small U-Net twice, with L1 and with L1 + the reblurring loss, from the same weights on "
        "the same data, test both on held-out photos, and write checkpoints, metrics and pictures.",
    )
    demo.add_argument("--output", metavar="DIR", help="run folder, new or empty (default: runs/demo, runs/demo-2, ...)")
    demo.add_argument("--steps", type=int, metavar="N", help="training steps of each network")
    demo.add_argument("--seed", type=int, default=0, help="seed of weights, data order and blur (default: 0)")
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from reblurkit.plugins.demo import run_demo

    run_demo(options.output, steps=options.steps, seed=options.seed)


def _last_cause(error: ReblurkitError) -> str:
    """The message in one line; of an error from a loader's worker process, the line that says what was wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if "Original Traceback" not in str(error):
        return " ".join(line.strip() for line in lines)
    return lines[-1].split(": ", 1)[-1]
