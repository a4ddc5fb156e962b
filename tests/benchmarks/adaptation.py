"""Seconds and memory of test-time adaptation, against its floating point operations and a naive loop.

python -m tests.benchmarks.adaptation                  # CPU, writes docs/results/adaptation_cpu.{json,md}
python -m tests.benchmarks.adaptation --device cuda    # GPU

On Linux, MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1 keeps memory that was freed: without it, large images spend much
of their time on fresh pages. The results name both, when set.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reblurkit.adaptation import adapt
from reblurkit.core.calls import finest_scale
from reblurkit.models import ReblurNet, create_model, list_models
from tests.benchmarks.contract import Run, cell, heading, interleaved, machine, peak_memory, summary, write

ROOT = Path(__file__).parents[2]
NETWORKS = ("unet", "srn", "dhn")
SIZES = {"256 x 256": (256, 256), "1280 x 720": (720, 1280)}
STEPS = {"256 x 256": (1, 5), "1280 x 720": (1, 2)}  # a step is their difference; on a CPU, 720p takes minutes
EXPLANATION = """\
Medians with first and third quartile; all contestants of a table ran in turns in one process. A step is the difference
between many steps and one, over their number less one: 5 at 256 x 256, 2 at 1280 x 720. "FLOP ratio" counts the
floating point operations of a step over those of one forward pass of the deblurring network; "time ratio" is the same
of seconds, and "excess" the time ratio over the FLOP ratio. The naive loop copies the network for every image by
`copy.deepcopy` and lets the reblurring network collect gradients. Memory is beyond networks and input; "training" is as
many Adam steps on the same image plus one copy of the adapted parameters. Reblurring network: n=1, 64 channels.
Made by `python -m tests.benchmarks.adaptation`."""


def naive(network: nn.Module, reblur_net: nn.Module, blurry: Tensor, steps: int) -> Tensor:
    """Algorithm 1 as one would write it down."""
    adapted = copy.deepcopy(network)
    optimizer = torch.optim.Adam(adapted.parameters(), 3e-6)
    for _ in range(steps):
        deblurred = finest_scale(adapted(blurry))
        loss = (reblur_net(deblurred) - deblurred.detach()).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return finest_scale(adapted(blurry))


def training(network: nn.Module, reblur_net: nn.Module, blurry: Tensor, steps: int) -> Run:
    """A few steps of training on the same loss, with frozen M_R; the first has no state of Adam's yet."""

    def run() -> None:
        copied = copy.deepcopy(network)  # so that the benchmark's network stays; its weights count as the copy
        optimizer = torch.optim.Adam(copied.parameters(), 1e-4)
        frozen = copy.deepcopy(reblur_net).requires_grad_(False)
        for _ in range(steps):
            optimizer.zero_grad()
            deblurred = finest_scale(copied(blurry))
            (frozen(deblurred) - deblurred.detach()).abs().mean().backward()
            optimizer.step()

    return run


def flops(run: Run) -> int:
    """Floating point operations of a run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def measure(
    network: nn.Module,
    size: str,
    device: torch.device,
    repeats: int,
    seconds: float = 60,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Time, operations and memory of one network at one size."""
    one_step, many_steps = STEPS[size]
    torch.manual_seed(0)
    network, reblur_net = network.to(device).eval(), ReblurNet(blocks=1).to(device).eval()
    blurry = torch.rand(1, 3, *SIZES[size], device=device)

    def forward() -> None:
        with torch.no_grad():
            network(blurry)

    def adapted(steps: int, **options: Any) -> Run:
        return lambda: adapt(network, reblur_net, blurry, steps=steps, match_histogram=False, **options)

    variants: dict[str, dict[str, Any]] = {"adapt": {}, "adapt, bias only": {"parameters": "bias"}}
    contestants = {name: [adapted(steps, **options) for steps in STEPS[size]] for name, options in variants.items()}
    contestants["naive"] = [lambda steps=steps: naive(network, reblur_net, blurry, steps) for steps in STEPS[size]]
    contestants = {name: pair for name, pair in contestants.items() if only is None or name in only}
    runs: dict[str, Run] = {"forward": forward}
    runs |= {
        f"{name} {steps}": run
        for name, pair in contestants.items()
        for steps, run in zip(STEPS[size], pair, strict=True)
    }
    times = interleaved(runs, repeats, device, seconds)
    one = summary(times["forward"])
    trained = training(network, reblur_net, blurry, many_steps)
    rows: dict[str, Any] = {"forward": {"ms": one, "steps": many_steps, "training MB": peak_memory(trained, device)}}
    for name, pair in contestants.items():
        few, many = (times[f"{name} {steps}"] for steps in STEPS[size])
        step = summary([(b - a) / (many_steps - one_step) for a, b in zip(few, many, strict=False)])
        ratio = (flops(pair[1]) - flops(pair[0])) / (many_steps - one_step) / flops(forward)
        rows[name] = {
            "step ms": step,
            "image ms": summary(many),
            "FLOP ratio": ratio,
            "time ratio": step["median"] / one["median"],
            "excess": step["median"] / one["median"] / ratio,
            "peak MB": peak_memory(pair[1], device),
        }
    for name, options in {"checkpointing": {"checkpointing": True}, "tile=256": {"tile": 256}}.items():
        rows[f"adapt, {name}"] = {"peak MB": peak_memory(adapted(many_steps, **options), device)}
    return rows


def markdown(results: dict[str, Any]) -> str:
    """The tables, for people."""
    lines = heading("Test-time adaptation: time and memory", results, EXPLANATION)
    for title, rows in results["models"].items():
        first = rows["forward"]
        lines += [
            f"## {title}",
            "",
            f"One forward pass: {cell(first['ms'])} ms. Training: {first['training MB']:.0f} MB.",
            "",
        ]
        lines += [f"| | ms a step | ms an image, {first['steps']} steps | FLOP ratio | time ratio | excess | peak MB |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, row in rows.items():
            if "step ms" in row:
                lines.append(
                    f"| {name} | {cell(row['step ms'])} | {cell(row['image ms'])} | {row['FLOP ratio']:.2f} | "
                    f"{row['time ratio']:.2f} | {row['excess']:.2f} | {row['peak MB']:.0f} |"
                )
            elif name != "forward":
                lines.append(f"| {name} | | | | | | {row['peak MB']:.0f} |")
        lines.append("")
    if results["missing"]:
        lines += [f"Not measured, because not in this version: {', '.join(results['missing'])}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60, help="no more repeats of a run that has taken as long")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--contestants", nargs="+", help="fewer of them, where time is short")
    parser.add_argument("--keep", action="store_true", help="keep the tables of the output that are not measured anew")
    parser.add_argument("--output", type=Path, help="default: docs/results/adaptation_DEVICE")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    available = [name for name in arguments.networks if name in list_models()]
    missing = sorted({*arguments.networks} - {*available})
    results: dict[str, Any] = {"machine": machine(device), "models": {}, "missing": missing}
    output = arguments.output or ROOT / "docs" / "results" / f"adaptation_{device.type}"
    if arguments.keep:
        before = json.loads(output.with_suffix(".json").read_text())
        if before["machine"] != results["machine"]:
            parser.error(f"{output}.json was measured elsewhere: {before['machine']}")
        results["models"] |= before["models"]
    for size in arguments.sizes:
        for name in available:
            title = f"{name}, {size}"
            print(title, file=sys.stderr, flush=True)
            network = create_model(name)
            results["models"][title] = measure(
                network, size, device, arguments.repeats, arguments.seconds, arguments.contestants
            )
            write(results, markdown(results), output)  # after each: 720p takes long on a CPU
    print(markdown(results))


if __name__ == "__main__":
    main()
