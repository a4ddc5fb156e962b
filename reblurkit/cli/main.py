"""The ``reblurkit`` command.

Nothing heavy is imported before the command line is known to need it: ``reblurkit --help`` must answer at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, NoReturn

from reblurkit import __version__
from reblurkit.errors import ArgumentError, ReblurkitError

if TYPE_CHECKING:
    from reblurkit.plugins.trained_network import TrainedNetworks

# Trainer entry points, handed to LightningCLI.
COMMANDS = {
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
        Exit status: 0 on success, 1 where some inputs failed and were listed, 2 on bad usage or bad input, with one
        line on stderr, 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # users' own classes, as `python -m` would find them
    options: argparse.Namespace | None = None
    try:
        if words and words[0] in COMMANDS:
            from reblurkit.cli.trainer import run_lightning_cli

            run_lightning_cli(words)
            return 0
        options = _parser().parse_args(words)
        return options.run(options) or 0
    except KeyboardInterrupt:
        if debug:
            raise
        print("reblurkit: interrupted", file=sys.stderr)
        return 130
    except ReblurkitError as error:
        if debug:
            raise
        print(f"reblurkit: error: {_with_flags(_last_cause(error), options)}", file=sys.stderr)
        return 2
    except OSError as error:
        # a training of hours keeps its traceback
        if debug or error.filename is None or words[0] in COMMANDS:
            raise
        print(f"reblurkit: error: cannot use {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message}; `{self.prog} --help` lists what there is")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="reblurkit",
        description="Deblurring by reblurring: train, test and use deblurring networks.",
        epilog="`reblurkit COMMAND --help` tells more. `--debug` anywhere shows the traceback of an error.",
    )
    parser.add_argument("--version", action="version", version=f"reblurkit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)  # for the help only: main() hands these to LightningCLI
    demo = commands.add_parser(
        "demo",
        help="train and compare two small networks on bundled photos, in 4 minutes",
        description="Train a small U-Net twice, with L1 and with L1 + the reblurring loss, from the same weights on "
        "the same data, test both on held-out photos, and write checkpoints, metrics and pictures.",
    )
    demo.add_argument("--output", metavar="DIR", help="run folder, new or empty (default: runs/demo, runs/demo-2, ...)")
    demo.add_argument(
        "--steps", type=int, metavar="N", help="training steps of each network (default: 1200; far fewer show nothing)"
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of weights, data order and blur (default: 0)")
    demo.set_defaults(run=_demo)
    _add_deblur(commands)
    _add_adapt_video(commands)
    report = commands.add_parser(
        "report",
        help="show runs on one page: results, curves, pictures, options",
        description="Write a page that shows one or several runs: results, curves, pictures of the validations, and in "
        "which options they differ.",
    )
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or a folder of such as lightning_logs")
    report.add_argument("--output", metavar="FILE", default="report.html", help="the page (default: report.html)")
    report.set_defaults(run=_report)
    return parser


def _add_network(parser: _Parser) -> None:
    """The ways to name a trained network, see ``load_networks``."""
    add = parser.add_argument
    add("--checkpoint", metavar="FILE", help="the network: a checkpoint of `reblurkit fit`")
    add("--config", metavar="FILE", help="its configuration (default: config.yaml of its run)")
    add("--model", metavar="NAME", help="or a network of this package, with --weights")
    add("--network", metavar="CLASS", help="or a class by its dotted path")
    add("--network-args", metavar="JSON", help="arguments of model or class")
    add("--weights", metavar="FILE", help="weights of model or class")


def _add_deblur(commands: argparse._SubParsersAction[_Parser]) -> None:
    deblur = commands.add_parser(
        "deblur",
        help="deblur image files, folders and videos with a trained network",
        description="Deblur images of any size with a trained network, and write them as PNG files of the same name; "
        "those of a folder keep their place below it, those of a video go to a folder of its name.",
    )
    add = deblur.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image file, folder of images, or video file")
    add("--output", metavar="DIR", required=True, help="folder for the deblurred images")
    _add_network(deblur)
    add("--adapt", type=int, default=0, metavar="STEPS", help="adapt to each image first; 5 in the paper (default: 0)")
    add("--adapt-lr", type=float, default=3e-6, metavar="RATE", help="(default: 3e-6, the paper's)")
    add("--translator", metavar="FILE", help="a Blur2BlurTranslator's checkpoint, to run before the network")
    add("--tile", type=int, metavar="N", help="side of the tiles in which large images are processed")
    existing = ("refuse", "skip", "overwrite")
    add("--existing", default="refuse", choices=existing, help="what to do about files that exist (default: refuse)")
    add("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    deblur.set_defaults(run=_deblur)


def _add_adapt_video(commands: argparse._SubParsersAction[_Parser]) -> None:
    adapt = commands.add_parser(
        "adapt-video",
        help="adapt a network to blurry clips without ground truth, and deblur them",
        description="Fine-tune a trained network on blurry clips, one or several together, by Reblur2Deblur's "
        "self-supervised loss beside labelled data, and write the deblurred frames.",
    )
    add = adapt.add_argument
    add("clips", nargs="+", metavar="CLIP", help="folder of frames, or video file")
    add("--output", metavar="DIR", required=True, help="folder, new or empty")
    _add_network(adapt)
    add("--labelled", metavar="ROOT", help="blurry and sharp images that training goes on with")
    add("--layout", default="folders", help="their layout (default: folders)")
    add("--split", default="train", help="their split; '' where the root is not divided (default: train)")
    add("--unsupervised", action="store_true", help="without labelled data, against the paper's advice")
    add("--exposure", type=float, help="half-length of the exposure in frame intervals")
    add("--shutter", type=float, metavar="SECONDS", help="or the time the shutter is open, with --fps")
    add("--fps", type=float, help="frames per second")
    add("--window", type=int, help="or, for averaged frames, how many were averaged, with --stride")
    add("--stride", type=int, help="sharp frames from one averaged frame to the next")
    add("--steps", type=int, default=200, help="(default: 200, the paper's)")
    add("--lr", type=float, default=1e-4, help="(default: 1e-4)")
    add("--weight", type=float, default=0.1, help="weight of the self-supervised loss (default: 0.1)")
    add("--blur", default="kernel", help="kernel, line or warp (default: kernel, the paper's)")
    add("--flow", default="raft-small", help="raft-small, raft-large or tvl1 (default: raft-small)")
    add("--frames", type=int, default=3, help="3, or 2 for steady motion (default: 3)")
    add("--crop", type=int, default=128, help="side of the training crops (default: 128)")
    add("--batch-size", type=int, default=8, help="crops in a step, of either kind (default: 8)")
    add("--tile", type=int, metavar="N", help="side of the tiles in which large frames are deblurred")
    patch = ("TOP", "LEFT", "HEIGHT", "WIDTH")
    add("--saliency", type=int, nargs=4, metavar=patch, help="draw what a patch of the first clip's middle frame needs")
    add("--workers", type=int, default=2, help="processes that read (default: 2)")
    add("--seed", type=int, default=0, help="(default: 0)")
    adapt.set_defaults(run=_adapt_video)


def _demo(options: argparse.Namespace) -> None:
    from reblurkit.cli.demo import run_demo

    run_demo(options.output, steps=options.steps, seed=options.seed)


def _deblur(options: argparse.Namespace) -> int:
    from reblurkit.cli.deblur import deblur_files
    from reblurkit.inference import Deblurrer
    from reblurkit.plugins.trained_network import load_translator

    if "" in (*options.inputs, options.output):
        raise ArgumentError("an INPUT or --output is an empty word; write . for the folder you are in")
    network, reblur_net = _load_networks(options)
    if options.adapt > 0 and reblur_net is None:
        raise ArgumentError(
            "--adapt needs a --checkpoint that holds a reblurring network too: of DeblurTask with a reblur_net, or of "
            "ReblurTask, which trains one beside a network that is trained already"
        )
    deblurrer = Deblurrer(
        network,
        translator=None if options.translator is None else load_translator(options.translator),
        reblur_net=reblur_net if options.adapt else None,
        steps=options.adapt,
        lr=options.adapt_lr,
        tile=options.tile,
        device=options.device,
    )
    written, skipped, failed = deblur_files(options.inputs, options.output, deblurrer, existing=options.existing)
    _list_failures(failed, options)
    if deblurrer.not_adapted:
        print(f"reblurkit: images not adapted, because the loss became NaN: {deblurrer.not_adapted}", file=sys.stderr)
    there = f"; there already: {skipped}" if skipped else ""
    print(f"reblurkit: images deblurred: {written}{there}; folder: {options.output}", file=sys.stderr)
    return 1 if failed else 0


def _load_networks(options: argparse.Namespace) -> TrainedNetworks:
    from reblurkit.plugins.trained_network import load_networks

    return load_networks(
        checkpoint=options.checkpoint,
        config=options.config,
        model=options.model,
        network=options.network,
        network_args=options.network_args,
        weights=options.weights,
    )


def _adapt_video(options: argparse.Namespace) -> int:
    from reblurkit.blur.exposure import exposure_from
    from reblurkit.cli.adapt_video import run_adapt_video
    from reblurkit.cli.video_finetuning import FinetuneOptions

    timing = {name: getattr(options, name) for name in ("window", "stride", "shutter", "fps")}
    if (options.exposure is None) == (not any(value is not None for value in timing.values())):
        raise ArgumentError(
            "say how long the exposure is, in one way: --exposure (half its length in frame intervals), --shutter and "
            "--fps, or --window and --stride"
        )
    wanted = {field.name: getattr(options, field.name) for field in fields(FinetuneOptions)}
    wanted["exposure"] = exposure_from(**timing) if options.exposure is None else options.exposure
    wanted["split"] = options.split or None
    finetune_options = FinetuneOptions(**wanted)
    saliency = tuple(options.saliency) if options.saliency else None
    failed = run_adapt_video(
        options.clips,
        options.output,
        _load_networks(options).network,
        finetune_options,
        tile=options.tile,
        saliency=saliency,
    )
    _list_failures(failed, options)
    print(f"reblurkit: deblurred frames, comparison.png and network.pt: {options.output}", file=sys.stderr)
    return 1 if failed else 0


def _report(options: argparse.Namespace) -> int:
    from reblurkit.cli.report.page import write_report

    failed = write_report(options.runs, options.output)
    _list_failures(failed, options)
    print(f"reblurkit: report: {options.output}", file=sys.stderr)
    return 1 if failed else 0


def _list_failures(lines: Sequence[str], options: argparse.Namespace) -> None:
    for line in lines:
        print(f"reblurkit: failed: {_with_flags(line, options)}", file=sys.stderr)


def _with_flags(message: str, options: argparse.Namespace | None) -> str:
    """A message in which arguments of functions, in backticks, are named by the options that they came from."""
    known = vars(options) if options is not None else {}

    def named(match: re.Match[str]) -> str:
        return f"--{match[1].replace('_', '-')}" if match[1] in known else match[0]

    return re.sub(r"`(\w+)`", named, message)


def _last_cause(error: ReblurkitError) -> str:
    """The message in one line; of an error from a loader's worker process, the line that says what was wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if "Original Traceback" not in str(error):
        return " ".join(line.strip() for line in lines)
    return lines[-1].split(": ", 1)[-1]
