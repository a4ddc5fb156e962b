"""What cheaper forms of the reblurring loss add to the time of a training step.

python -m tests.benchmarks.cheaper_step                  # CPU, writes docs/results/cheaper_step_cpu.{json,md}
python -m tests.benchmarks.cheaper_step --device cuda    # GPU
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reblurkit.losses import ReblurLoss
from reblurkit.models import ReblurNet, UNet
from tests.benchmarks.contract import heading, interleaved, machine, summary, write

ROOT = Path(__file__).parents[2]
EXPLANATION = """\
The paper's U-Net; a step is forward, backward and the optimizers (Adam). Times are medians in milliseconds with first
and third quartile, in turns in one process. Of a form that reblurs in every n-th step arithmetic and time are the mean
of n steps, made of those of the plain step and the reblurring one.
Made by `python -m tests.benchmarks.cheaper_step`."""


class Form(NamedTuple):
    """M_R, and how often it is asked."""

    reblur_net: dict[str, int]
    every: int = 1
    frozen: bool = False


PAPERS, FOLDED = {"blocks": 2}, {"blocks": 2, "width": 48, "fold": 2}
FORMS = {
    "n = 2": Form(PAPERS),
    "n = 2, every 7th": Form(PAPERS, every=7),
    "n = 2, frozen": Form(PAPERS, frozen=True),
    "n = 2, frozen, every 3rd": Form(PAPERS, every=3, frozen=True),
    "folded": Form(FOLDED),
    "folded, every 2nd": Form(FOLDED, every=2),
    "folded, frozen": Form(FOLDED, frozen=True),
}
BATCHES = {"cpu": (1, 3, 128, 128), "cuda": (16, 3, 256, 256)}


class Step:
    """A training step with a form of the loss, or with L1 alone."""

    def __init__(self, form: Form | None, device: torch.device) -> None:
        torch.manual_seed(0)
        self.network = UNet().to(device)
        self.blurry, self.sharp = torch.rand(2, *BATCHES[device.type]).to(device)
        self.loss = None
        networks = [self.network]
        if form is not None:
            reblur_net = ReblurNet(**form.reblur_net).to(device).requires_grad_(not form.frozen)  # type: ignore[arg-type]
            self.loss = ReblurLoss(self.network, reblur_net, sharpness=None if form.frozen else "pseudo")
            networks += [] if form.frozen else [reblur_net]
        self.optimizers = [torch.optim.Adam(network.parameters(), 1e-4) for network in networks]

    def __call__(self) -> None:
        """One step."""
        deblurred = self.network(self.blurry)
        loss = F.l1_loss(deblurred, self.sharp)
        if self.loss is not None:
            loss = loss + self.loss(deblurred, self.sharp, self.blurry)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def measure(device: torch.device, repeats: int, seconds: float) -> dict[str, Any]:
    """Arithmetic and time of every form."""
    steps = {
        name: Step(form, device) for name, form in {"L1": None, **FORMS}.items() if form is None or form.every == 1
    }
    arithmetic = {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        arithmetic[name] = counter.get_total_flops() / 1e9
    times = interleaved(dict(steps), repeats, device, seconds / len(steps))
    rows = {name: {"GFLOP": arithmetic[name], "ms": summary(times[name])} for name in steps}
    for name, form in FORMS.items():
        if form.every > 1:
            (whole,) = (other for other, one in FORMS.items() if one == form._replace(every=1))
            mean = partial(_mean, every=form.every)
            rows[name] = {
                "GFLOP": mean(arithmetic["L1"], arithmetic[whole]),
                "ms": summary([mean(*pair) for pair in zip(times["L1"], times[whole], strict=True)]),
            }
    return {name: rows[name] for name in ("L1", *FORMS)}


def _mean(plain: float, whole: float, every: int) -> float:
    return plain + (whole - plain) / every


def markdown(results: dict[str, Any]) -> str:
    """The table, for people."""
    lines = heading("A training step with cheaper forms of the reblurring loss", results, EXPLANATION)
    lines += [f"Batch {results['batch']}.", "", "| step | GFLOP | / L1 | ms | / L1 |", "|---|---|---|---|---|"]
    base = results["steps"]["L1"]
    for name, row in results["steps"].items():
        spread = f"{row['ms']['median']:.4g} ({row['ms']['q1']:.4g}-{row['ms']['q3']:.4g})"
        ratios = row["GFLOP"] / base["GFLOP"], row["ms"]["median"] / base["ms"]["median"]
        lines.append(f"| {name} | {row['GFLOP']:.4g} | {ratios[0]:.2f} | {spread} | {ratios[1]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, help="default: docs/results/cheaper_step_DEVICE")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    results = {
        "machine": machine(device),
        "batch": "x".join(map(str, BATCHES[device.type])),
        "steps": measure(device, arguments.repeats, 15 if device.type == "cuda" else 300),
    }
    text = markdown(results)
    write(results, text, arguments.output or ROOT / "docs" / "results" / f"cheaper_step_{device.type}")
    print(text)


if __name__ == "__main__":
    main()
