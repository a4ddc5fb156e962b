"""What the reblurring loss adds to the time of a training step, beside what it adds to its arithmetic.

    python -m tests.benchmarks.step                  # CPU, writes docs/results/step_cpu.{json,md}
    python -m tests.benchmarks.step --device cuda    # GPU

A step is forward, backward and the optimizers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reblurkit.core.calls import call_frozen, call_untouched
from reblurkit.losses import ReblurLoss
from reblurkit.models import ReblurNet, UNet
from tests.benchmarks.contract import Run, heading, interleaved, machine, peak_memory, summary, write

ROOT = Path(__file__).parents[2]
EXPLANATION = """\
A step is forward, backward and the optimizers (Adam). Times are medians in milliseconds with first and third quartile;
all contestants of a table ran in turns in one process. Arithmetic is counted by `torch.utils.flop_counter`. Memory is
what a step takes beyond networks and optimizers.

- **L1**: without the reblurring loss.
- **reblurring**: `ReblurLoss`, as in the package: M_R(L) is computed once and serves equations 2 and 5.
- **separate**: M_R(L) computed once for each of them, the arithmetic of a correct loop with two optimizers.
- **joined**: as separate, with M_R's own passes on L and Ŝ in one batch.
- **careless**: the loop one writes first: M_R not frozen while M_D learns, a graph kept for M_R(S), L computed twice.
- **channels_last**: both networks `.to(memory_format=torch.channels_last)`.
- **bf16** (on a GPU): the step under `torch.autocast` in bfloat16.
- **compiled** (with `--compile`): both networks `.compile()`; the package then computes M_R(L) twice.

Made by `python -m tests.benchmarks.step`."""


class Setting(NamedTuple):
    """Both networks' sizes, and the batch."""

    blocks: int
    widths: tuple[int, int, int]
    reblur_width: int
    batch: tuple[int, int, int, int]


SETTINGS = {
    "cpu": {
        "the paper's U-Net": Setting(8, (64, 128, 192), 64, (1, 3, 128, 128)),
        "a small U-Net": Setting(4, (32, 48, 64), 16, (8, 3, 48, 48)),
    },
    "cuda": {
        "the paper's U-Net": Setting(8, (64, 128, 192), 64, (16, 3, 256, 256)),
        "a small U-Net": Setting(4, (32, 48, 64), 16, (16, 3, 256, 256)),
    },
}


class Training:
    """M_D, M_R, their optimizers and a batch; every contestant has its own, all equal."""

    def __init__(self, setting: Setting, blocks: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = UNet(setting.blocks, setting.widths).to(device)
        self.reblur_net: nn.Module = ReblurNet(blocks, setting.reblur_width).to(device)
        self.blurry, self.sharp = torch.rand(2, *setting.batch).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-4)
        self.reblur_optimizer = torch.optim.Adam(self.reblur_net.parameters(), 1e-4)

    def update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Backward and step."""
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def l1(run: Training) -> None:
    """Training without the reblurring loss."""
    run.update(F.l1_loss(run.network(run.blurry), run.sharp), run.optimizer)


def reblurring(run: Training) -> None:
    """Training with it, as in the package."""
    deblurred = run.network(run.blurry)
    loss = ReblurLoss(run.network, run.reblur_net)(deblurred, run.sharp, run.blurry)
    run.update(F.l1_loss(deblurred, run.sharp) + loss, run.optimizer, run.reblur_optimizer)


def separate(run: Training, joined: bool = False) -> None:
    """Every pass by itself, or M_R's own two in one batch."""
    deblurred, preserved = run.network(run.blurry), call_untouched(run.network, run.sharp)
    with torch.no_grad():
        target = run.reblur_net(run.sharp)
    loss = F.l1_loss(deblurred, run.sharp) + F.l1_loss(call_frozen(run.reblur_net, deblurred), target)
    if joined:
        both, targets = torch.cat([deblurred.detach(), preserved]), torch.cat([run.blurry, preserved])
        loss = loss + 2 * F.l1_loss(run.reblur_net(both), targets)  # the mean over both is half the sum of two means
    else:
        loss = loss + F.l1_loss(run.reblur_net(deblurred.detach()), run.blurry)
        loss = loss + F.l1_loss(run.reblur_net(preserved), preserved)
    run.update(loss, run.optimizer, run.reblur_optimizer)


def careless(run: Training) -> None:
    """Two optimisations, one after the other, each computing what it needs."""
    deblurred = run.network(run.blurry)
    reblurred = F.l1_loss(run.reblur_net(deblurred), run.reblur_net(run.sharp))
    run.update(F.l1_loss(deblurred, run.sharp) + reblurred, run.optimizer)
    run.reblur_optimizer.zero_grad()
    deblurred, preserved = run.network(run.blurry).detach(), run.network(run.sharp).detach()
    blur = F.l1_loss(run.reblur_net(deblurred), run.blurry)
    run.update(blur + F.l1_loss(run.reblur_net(preserved), preserved), run.reblur_optimizer)


STEPS: dict[str, Callable[[Training], None]] = {
    "L1": l1,
    "reblurring": reblurring,
    "separate": separate,
    "joined": partial(separate, joined=True),
    "careless": careless,
}


def contestants(setting: Setting, blocks: int, device: torch.device, compiled: bool) -> dict[str, Run]:
    """Every step as written, and some in other clothes."""
    runs: dict[str, Run] = {}
    for name, step in STEPS.items():
        runs[name] = partial(step, Training(setting, blocks, device))
    for name in ("L1", "reblurring", "careless"):
        training = Training(setting, blocks, device)
        for net in (training.network, training.reblur_net):
            net.to(memory_format=torch.channels_last)
        runs[f"{name}, channels_last"] = partial(STEPS[name], training)
    for name in ("L1", "reblurring") if device.type == "cuda" else ():
        for format_ in ("", ", channels_last"):
            step = runs[f"{name}{format_}"]
            runs[f"{name}, bf16{format_}"] = partial(in_bfloat16, step, device)
    for name in ("L1", "reblurring") if compiled else ():
        training = Training(setting, blocks, device)
        for net in (training.network, training.reblur_net):
            net.compile()
        runs[f"{name}, compiled"] = partial(STEPS[name], training)
    return runs


def in_bfloat16(step: Run, device: torch.device) -> None:
    """A step whose networks compute in bfloat16."""
    with torch.autocast(device.type, torch.bfloat16):
        step()


def measure(
    setting: Setting, blocks: int, device: torch.device, repeats: int, compiled: bool, seconds: float
) -> dict[str, Any]:
    """Arithmetic, time and memory of every contestant, in about ``seconds``."""
    arithmetic = {}
    for name, step in STEPS.items():
        with FlopCounterMode(display=False) as counter:
            step(Training(setting, blocks, device))
        arithmetic[name] = counter.get_total_flops() / 1e9
    runs = contestants(setting, blocks, device, compiled)
    times = interleaved(runs, repeats, device, seconds / len(runs))
    return {
        name: {
            "GFLOP": arithmetic["separate" if name == "reblurring, compiled" else name.split(",")[0]],
            "ms": summary(times[name]),
            "peak MB": peak_memory(run, device),
        }
        for name, run in runs.items()
    }


def markdown(results: dict[str, Any]) -> str:
    """The tables, for people."""
    lines = heading("A training step with the reblurring loss", results, EXPLANATION)
    for title, rows in results["steps"].items():
        base = rows["L1"]
        lines += [f"## {title}", "", "| step | GFLOP | / L1 | ms | / L1 | time / arithmetic | peak MB |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, row in rows.items():
            time, arithmetic = _ratios(row, base)
            spread = f"{row['ms']['median']:.4g} ({row['ms']['q1']:.4g}-{row['ms']['q3']:.4g})"
            lines.append(
                f"| {name} | {row['GFLOP']:.4g} | {arithmetic:.2f} | {spread} | {time:.2f} | {time / arithmetic:.2f} | "
                f"{row['peak MB']:.0f} |"
            )
        lines.append("")
        for suffix in ("", ", channels_last"):
            ours, theirs = rows["reblurring" + suffix], rows["careless"]
            time, arithmetic = _ratios(theirs, ours)
            lines.append(
                f"- careless / reblurring{suffix}: {time:.2f} times the time, {arithmetic:.2f} times the arithmetic"
            )
        lines.append("")
    return "\n".join(lines)


def _ratios(row: dict[str, Any], base: dict[str, Any]) -> tuple[float, float]:
    return row["ms"]["median"] / base["ms"]["median"], row["GFLOP"] / base["GFLOP"]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="measure compiled networks, too (minutes more)")
    parser.add_argument("--output", type=Path, help="default: docs/results/step_DEVICE")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    # A GPU is shared and dear: four tables within a minute, start and warm-up not counted.
    seconds = 15 if device.type == "cuda" else 900
    results: dict[str, Any] = {"machine": machine(device), "steps": {}}
    for name, setting in SETTINGS[device.type].items():
        for blocks in (1, 2):
            title = f"{name}, n={blocks}, batch {'x'.join(map(str, setting.batch))}"
            rows = measure(setting, blocks, device, arguments.repeats, arguments.compile, seconds)
            results["steps"][title] = rows
            # What has been measured is kept, should the time be over.
            text = markdown(results)
            write(results, text, arguments.output or ROOT / "docs" / "results" / f"step_{device.type}")
    print(text)


if __name__ == "__main__":
    main()
