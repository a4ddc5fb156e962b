"""The commands: what may be typed, and what it runs.

Nothing heavy is imported before a command runs: ``reblurkit --help`` must answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from reblurkit import __version__
from reblurkit.cli import parsing
from reblurkit.cli.failures import list_failures, tell
from reblurkit.cli.parsing import Parser
from reblurkit.cli.words import OWN_SCALES, TRAINER_COMMANDS
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.plugins.network_ways import check_ways

if TYPE_CHECKING:
    from reblurkit.plugins.trained_network import TrainedNetworks

# Steps and learning rate: the paper's, and what docs/results/adaptation_unet.md chose for at most 1 dB of PSNR.
_PURPOSES = {"fidelity": (5, 3e-6), "sharpness": (3, 3e-5)}
_NETWORK = ("checkpoint", "config", "model", "network", "network_args", "weights")
_OWN_TILE = 2048  # of the package's own network: less than a gigabyte, whatever the size of the photo


def command_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command line; sets ``run`` to what the command does.

    Of the commands that the words do not name it knows no more than the summaries, and those of the Trainer are handed
    to LightningCLI before it comes to parsing.
    """
    parser = Parser(
        prog="reblurkit",
        description="Deblurring by reblurring: train, test and use deblurring networks.",
        epilog="`reblurkit COMMAND --help` tells more. `--debug` anywhere shows the traceback of an error.",
    )
    parser.add_argument("--version", action="version", version=f"reblurkit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, summary in TRAINER_COMMANDS.items():
        commands.add_parser(name, help=summary)
    for name, command in _COMMANDS.items():
        command_parser = commands.add_parser(name, help=command.summary)
        if name == chosen:
            command.add_arguments(command_parser)
            command_parser.set_defaults(run=command.run)
    return parser


def _demo_arguments(parser: Parser) -> None:
    parser.description = (
        "Deblur bundled photos with the network in the box; then fine-tune it on a blur that it does not know, with L1 "
        "and with L1 + the reblurring loss, adapt it to each photo, and write checkpoints, metrics and pictures."
    )
    add = parser.add_argument
    add("--output", metavar="DIR", help="run folder, new or empty (default: runs/demo, runs/demo-2, ...)")
    add("--steps", type=int, metavar="N", help="steps of each fine-tuning (default: 200; 12 with --quick)")
    add("--quick", action="store_true", help="few steps, one minute in all")
    add("--seed", type=parsing.seed, default=0, help="seed of weights, data order and blur (default: 0)")


def _report_arguments(parser: Parser) -> None:
    parser.description = (
        "Write a page that shows one or several runs: results, curves, pictures of the validations, and in which "
        "options they differ."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or a folder of such as lightning_logs")
    parser.add_argument("--output", metavar="FILE", default="report.html", help="the page (default: report.html)")


def _completion_arguments(parser: Parser) -> None:
    parser.description = (
        "Print a script by which a shell completes commands, options and classes, for instance: reblurkit completion "
        "bash > ~/.local/share/bash-completion/completions/reblurkit"
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="bash or zsh")


def _add_network(parser: Parser) -> None:
    """The ways to name a trained network, see ``load_networks``."""
    add = parser.add_argument
    add(
        "--checkpoint",
        metavar="FILE",
        help="the network: a checkpoint of `reblurkit fit` (default: the pretrained one)",
    )
    add("--config", metavar="FILE", help="its configuration (default: config.yaml of its run)")
    add("--model", metavar="NAME", help="or a network of this package, with --weights")
    add("--network", metavar="CLASS", help="or a class by its dotted path")
    add("--network-args", metavar="JSON", help="arguments of model or class")
    add("--weights", metavar="FILE", help="weights of model or class")


def _deblur_arguments(parser: Parser) -> None:
    parser.description = (
        "Deblur images of any size, and write them as PNG files of the same name; those of a folder keep their place "
        "below it, those of a video go to a folder of its name. Without a network of yours, the one of this package."
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image file, folder of images, or video file")
    add("--output", metavar="DIR", required=True, help="folder for the deblurred images")
    _add_network(parser)
    add("--adapt", type=parsing.steps, metavar="STEPS", help="adapt to each image first; 5 in the paper (default: 0)")
    add("--adapt-lr", type=parsing.rate, metavar="RATE", help="(default: 3e-6, the paper's)")
    purposes = "; ".join(f"{name}: {steps} steps of {rate:g}" for name, (steps, rate) in _PURPOSES.items())
    add("--adapt-for", choices=_PURPOSES, help=f"or steps and rate for a purpose ({purposes})")
    add("--adapt-to-blur", action="store_true", help="adapt to each photo's own blur (20 steps of 1e-4)")
    add("--translator", metavar="FILE", help="a Blur2BlurTranslator's checkpoint, to run before the network")
    scales = "sizes of the image to work at, each half of the one before, for long blur (default: 1; with neither a "
    add("--scales", type=parsing.scales, metavar="N", help=f"{scales}network named nor adaptation: {OWN_SCALES})")
    consistent = "correct photos that have one blur all over until they agree with it (default: with neither a network"
    add("--consistent", action=argparse.BooleanOptionalAction, help=f"{consistent} named nor adaptation)")
    add(
        "--tile", type=parsing.tile, metavar="N", help="side of the tiles for large images; auto: the largest that fits"
    )
    add("--compare", action="store_true", help="write a picture of before and after beside each image")
    existing = ("refuse", "skip", "overwrite")
    add("--existing", default="refuse", choices=existing, help="what to do about files that exist (default: refuse)")
    add("--strip", action="store_true", help="write no alpha, date, place, resolution or colour profile")
    add("--video", action="store_true", help="write a video beside the frames of each video file, with its sound")
    add("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")


def _adapt_video_arguments(parser: Parser) -> None:
    parser.description = (
        "Fine-tune a trained network on blurry clips, one or several together, by Reblur2Deblur's self-supervised loss "
        "beside labelled data, and write the deblurred frames."
    )
    from reblurkit.cli.finetune_options import FinetuneOptions

    add, defaults = parser.add_argument, FinetuneOptions
    add("clips", nargs="+", metavar="CLIP", help="folder of frames, or video file")
    add("--output", metavar="DIR", required=True, help="folder, new or empty")
    _add_network(parser)
    add("--labelled", metavar="ROOT", help="blurry and sharp images that training goes on with")
    add("--layout", default=defaults.layout, help="their layout (default: %(default)s)")
    add("--split", default=defaults.split, help="their split; '' where the root is not divided (default: %(default)s)")
    add("--unsupervised", action="store_true", help="without labelled data, against the paper's advice")
    add("--exposure", type=float, help="half-length of the exposure in frame intervals")
    add(
        "--shutter",
        type=parsing.fraction,
        metavar="SECONDS",
        help="or how long the shutter is open, as 1/50, with --fps",
    )
    add("--fps", type=parsing.fraction, help="frames per second, as 25 or 30000/1001")
    add("--window", type=int, help="or, for averaged frames, how many were averaged, with --stride")
    add("--stride", type=int, help="sharp frames from one averaged frame to the next")
    add("--steps", type=int, default=defaults.steps, help="(default: %(default)s, the paper's)")
    add("--lr", type=float, default=defaults.lr, help="(default: %(default)s)")
    add("--weight", type=float, default=defaults.weight, help="of the self-supervised loss (default: %(default)s)")
    add("--blur", default=defaults.blur, help="kernel, line or warp (default: %(default)s, the paper's)")
    add("--flow", default=defaults.flow, help="raft-small, raft-large or tvl1 (default: %(default)s)")
    add("--frames", type=int, default=defaults.frames, help="3, or 2 for steady motion (default: %(default)s)")
    add("--crop", type=int, default=defaults.crop, help="side of the training crops (default: %(default)s)")
    add(
        "--batch-size",
        type=int,
        default=defaults.batch_size,
        help="crops in a step, of either kind (default: %(default)s)",
    )
    add(
        "--tile", type=parsing.tile, metavar="N", help="side of the tiles for large frames; auto: the largest that fits"
    )
    patch = ("TOP", "LEFT", "HEIGHT", "WIDTH")
    add("--saliency", type=int, nargs=4, metavar=patch, help="draw what a patch of the first clip's middle frame needs")
    add("--video", action="store_true", help="write a video beside the frames of each video file, with its sound")
    add("--workers", type=int, default=defaults.workers, help="processes that read (default: %(default)s)")
    add("--seed", type=parsing.seed, default=defaults.seed, help="(default: %(default)s)")


def _demo(options: argparse.Namespace) -> None:
    from reblurkit.cli.demo import run_demo

    run_demo(options.output, steps=options.steps, quick=options.quick, seed=options.seed)


def _deblur(options: argparse.Namespace) -> int:
    steps, rate = _adaptation(options)
    _check_network(options)
    from reblurkit.cli.deblur import deblur_files
    from reblurkit.data.unread import unread_line
    from reblurkit.inference import Deblurrer
    from reblurkit.plugins.trained_network import load_translator

    network, reblur_net = _load_networks(options)
    needs_reblurring = bool(steps) and not options.adapt_to_blur
    if needs_reblurring and reblur_net is None:
        raise ArgumentError(
            "--adapt needs a --checkpoint that holds a reblurring network too: of DeblurTask with a reblur_net, or of "
            "ReblurTask, which trains one beside a network that is trained already; or --network and as --weights the "
            "checkpoint of a module with ReblurLossMixin and a ReblurNet"
        )
    if needs_reblurring:
        _tell_of_reblurring(options.checkpoint or options.weights)
    is_plain = not (steps or options.adapt_to_blur or _names_network(options))  # the network in the box, as it is
    consistent = options.consistent if options.consistent is not None else is_plain
    deblurrer = Deblurrer(
        network,
        translator=None if options.translator is None else load_translator(options.translator),
        reblur_net=reblur_net if needs_reblurring else None,
        steps=steps,
        lr=rate,
        to_blur=options.adapt_to_blur,
        scales=options.scales if options.scales is not None else OWN_SCALES if is_plain else 1,
        consistent=consistent,
        tile=options.tile if options.tile is not None or _names_network(options) else _OWN_TILE,
        device=options.device,
    )
    try:
        written, skipped, failed, unread, elsewhere = deblur_files(
            options.inputs,
            options.output,
            deblurrer,
            existing=options.existing,
            strip=options.strip,
            video=options.video,
            compare=options.compare,
            report=tell,
        )
    except (KeyboardInterrupt, SystemExit):
        tell(f"what is done stays in {options.output}; the same command with --existing skip goes on with the rest")
        raise
    if unread:
        tell(unread_line(unread))
    list_failures(failed, options)
    if deblurrer.not_adapted:
        tell(f"images not adapted, because the loss became NaN: {deblurrer.not_adapted}; take a smaller --adapt-lr")
    if consistent and written:
        tell(_consistency_line(deblurrer.corrected, deblurrer.judged, written))
    there = f"; there already: {skipped}" if skipped else ""
    there += f"; left to other runs into this folder: {elsewhere}" if elsewhere else ""
    tell(f"images deblurred: {written}{there}; folder: {options.output}")
    return 1 if failed else 0


def _consistency_line(corrected: int, judged: int, written: int) -> str:
    """How many photos were corrected, and what became of the others."""
    line = f"photos that have one blur, corrected to agree with it: {corrected} of {judged}"
    line += "; the others stay as the network made them" if corrected < judged else ""
    left = written - judged
    return f"{line}; not judged, of less than 256 pixels a side or of a video: {left}" if left > 0 else line


def _tell_of_reblurring(file: str | None) -> None:
    """Say what a checkpoint knows of its reblurring network."""
    from reblurkit.cli.adaptation_lines import reblurring_line
    from reblurkit.plugins.trained_network import checkpoint_metrics

    with contextlib.suppress(WeightsError):  # weights alone, which know nothing
        if file is not None and (line := reblurring_line(checkpoint_metrics(file))):
            tell(line)


def _adaptation(options: argparse.Namespace) -> tuple[int | None, float | None]:
    """Steps and learning rate, None for the usual ones."""
    if options.adapt_for is not None and options.adapt_to_blur:
        raise ArgumentError("--adapt-for is a way to adapt, and --adapt-to-blur another: leave one of them out")
    if options.adapt_to_blur and options.adapt == 0:
        raise ArgumentError("--adapt-to-blur takes at least one step, but --adapt is 0: leave one of them out")
    if options.adapt_for is None:
        return options.adapt, options.adapt_lr
    if options.adapt is not None or options.adapt_lr is not None:
        raise ArgumentError(
            "--adapt-for sets steps and learning rate; leave out --adapt and --adapt-lr, or --adapt-for"
        )
    return _PURPOSES[options.adapt_for]


def _network(options: argparse.Namespace) -> dict[str, str | None]:
    """The options that name one."""
    return {name: getattr(options, name) for name in _NETWORK}


def _names_network(options: argparse.Namespace) -> bool:
    return any(value is not None for value in _network(options).values())


def _check_network(options: argparse.Namespace) -> None:
    """Refuse at once what ``load_networks`` would after its imports."""
    if _names_network(options):
        check_ways(**_network(options))


def _load_networks(options: argparse.Namespace) -> TrainedNetworks:
    from reblurkit.plugins.trained_network import TrainedNetworks, load_networks

    if not _names_network(options):
        from reblurkit.models import load_pretrained

        network, reblur_net, _ = load_pretrained()
        tell("no network is named: the pretrained one of this package")
        return TrainedNetworks(network, reblur_net)

    return load_networks(**_network(options))


def _exposure(options: argparse.Namespace) -> float:
    """Half-length of the exposure, said in one of three ways."""
    timing = {name: getattr(options, name) for name in ("window", "stride", "shutter", "fps")}
    given = {name: value for name, value in timing.items() if value is not None}
    if (options.exposure is None) == (not given):
        raise ArgumentError(
            "say how long the exposure is, in one way: --exposure (half its length in frame intervals), --shutter and "
            "--fps, or --window and --stride"
        )
    if options.exposure is not None:
        return float(options.exposure)
    from reblurkit.blur.exposure import exposure_from
    from reblurkit.cli.finetune_options import check_span_of_exposure

    exposure = exposure_from(**timing)
    check_span_of_exposure(exposure, " and ".join(f"--{name} {value:g}" for name, value in given.items()))
    return exposure


def _adapt_video(options: argparse.Namespace) -> int:
    _check_network(options)
    exposure = _exposure(options)
    from dataclasses import fields

    from reblurkit.cli.adapt_video import run_adapt_video
    from reblurkit.cli.finetune_options import FinetuneOptions

    wanted = {field.name: getattr(options, field.name) for field in fields(FinetuneOptions)}
    wanted |= {"exposure": exposure, "split": options.split or None}
    finetune_options = FinetuneOptions(**wanted)
    saliency = tuple(options.saliency) if options.saliency else None
    failed = run_adapt_video(
        options.clips,
        options.output,
        _load_networks(options).network,
        finetune_options,
        tile=options.tile,
        saliency=saliency,
        video=options.video,
    )
    list_failures(failed, options)
    tell(f"deblurred frames, comparison.png and network.pt: {options.output}")
    return 1 if failed else 0


def _report(options: argparse.Namespace) -> int:
    from reblurkit.cli.report.page import write_report

    failed = write_report(options.runs, options.output)
    list_failures(failed, options)
    tell(f"report: {options.output}")
    return 1 if failed else 0


def _completion(options: argparse.Namespace) -> None:
    from reblurkit.cli.completion import completion_script

    print(completion_script(options.shell, {name: _long_options(name) for name in _COMMANDS}), end="")


def _long_options(name: str) -> list[str]:
    parser = Parser()
    _COMMANDS[name].add_arguments(parser)
    return [option for option in parser._option_string_actions if option.startswith("--")]


class _Command(NamedTuple):
    """A command: its line in the list of commands, its arguments, and what it does, which gives the exit status."""

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int | None]


_COMMANDS = {
    "demo": _Command("deblur bundled photos, and see what reblurring adds, in minutes", _demo_arguments, _demo),
    "deblur": _Command("deblur image files, folders and videos with a trained network", _deblur_arguments, _deblur),
    "adapt-video": _Command(
        "adapt a network to blurry clips without ground truth, and deblur them", _adapt_video_arguments, _adapt_video
    ),
    "report": _Command("show runs on one page: results, curves, pictures, options", _report_arguments, _report),
    "completion": _Command("print a script that completes words in bash or zsh", _completion_arguments, _completion),
}
