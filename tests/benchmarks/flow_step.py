"""Time of a fine-tuning step of Reblur2Deblur (Table 3), against a step with L1 alone.

python -m tests.benchmarks.flow_step                       # writes docs/results/flow_step_cpu.{json,md}; 8 minutes
python -m tests.benchmarks.flow_step --device cuda         # writes docs/results/flow_step_cuda.{json,md}
python -m tests.benchmarks.flow_step --networks unet --crop 64 --clips 2   # a quick look
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.blur import FlowKernelBlur, FlowLineBlur, FlowWarpBlur
from reblurkit.core.calls import finest_scale, frame_inputs, stack_length
from reblurkit.losses import flow_reblur_loss
from reblurkit.models import create_model
from tests.benchmarks.contract import Run, interleaved, machine, summary, write

OUTPUT = Path(__file__).parents[2] / "docs" / "results"
BASELINE, WARP = "L1 alone", "warp"
EXPLANATION = """\
A step is forward and backward of L1 on labelled crops, and, but for the baseline, of the self-supervised loss with
three frames on as many unlabelled clips: all three frames deblurred, FlowNetS (the paper's flow network) twice, the
blur model, and the gradients of both networks; no optimizer. Motion reaches 10 pixels between frames, the exposure is
0.5. The kernel model looks up the paper's table, the warp model is the mean of two warps. Medians in milliseconds with
first and third quartile; all contestants of a table ran in turns in one process. The paper's Table 3 has 2.15 s
(kernel) and 0.56 s (warp) for DBN on an unnamed TitanX. Made by `python -m tests.benchmarks.flow_step`."""


class KnownMotion(nn.Module):
    """A flow network that costs what FlowNetS costs, and whose flow is realistic without trained weights."""

    def __init__(self, crop: int) -> None:
        super().__init__()
        self.network = create_model("flownet-s")
        coarse = 20 * torch.rand(1, 2, 4, 4) - 10
        self.register_buffer("motion", F.interpolate(coarse, size=(crop, crop), mode="bicubic").clamp(-10, 10))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.motion + 1e-3 * self.network(source, target).tanh()


def models(device: torch.device) -> dict[str, nn.Module]:
    """The blur models by name, in every backend of the device."""
    found: dict[str, nn.Module] = {WARP: FlowWarpBlur(0.5)}
    for backend in ("triton" if device.type == "cuda" else "numba", "torch"):
        found[f"kernel, {backend}"] = FlowKernelBlur(0.5, backend=backend)
        found[f"line, {backend}"] = FlowLineBlur(0.5, backend=backend)
    return {name: model.to(device) for name, model in found.items()}


def alone(arguments: argparse.Namespace, device: torch.device) -> dict[str, Run]:
    """Forward and backward of the blur models."""
    motion = KnownMotion(arguments.crop).motion.to(device).expand(arguments.clips, -1, -1, -1)
    image = torch.rand(arguments.clips, 3, arguments.crop, arguments.crop, device=device)

    def run(model: nn.Module) -> Run:
        leaves = [tensor.clone().requires_grad_() for tensor in (image, motion, -motion)]
        return lambda: torch.autograd.grad(model(*leaves).square().sum(), leaves)

    return {name: run(model) for name, model in models(device).items()}


def steps(name: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, Run]:
    """A training step by contestant."""
    network = create_model(name).to(device).train()
    flow = KnownMotion(arguments.crop).to(device).eval()
    length = stack_length(network) + 2
    size = (arguments.clips, length, 3, arguments.crop, arguments.crop)
    labelled, unlabelled = torch.rand(2, *size, device=device)
    sharp = torch.rand_like(labelled[:, 0])
    centre = length // 2

    def supervised() -> Tensor:
        return F.l1_loss(finest_scale(network(frame_inputs(network, labelled, [centre]))), sharp)

    def self_supervised(blur: nn.Module) -> Tensor:
        inputs = frame_inputs(network, unlabelled, range(centre - 1, centre + 2))
        deblurred = finest_scale(network(inputs)).view(len(unlabelled), 3, *unlabelled.shape[2:])
        return flow_reblur_loss(deblurred, unlabelled[:, centre], flow, blur=blur)

    def run(blur: nn.Module | None) -> Run:
        def step() -> None:
            for net in (network, flow):
                net.zero_grad()
            loss = supervised()
            if blur is not None:
                loss = loss + 0.1 * self_supervised(blur)
            loss.backward()

        return step

    fast = {model: blur for model, blur in models(device).items() if not model.endswith(", torch")}
    return {BASELINE: run(None), **{model: run(blur) for model, blur in fast.items()}}


def table(title: str, rows: dict[str, dict[str, float]], baselines: list[str]) -> list[str]:
    """One table, for people."""
    lines = ["", f"## {title}", "", f"| | ms | {' | '.join(f'/ {name}' for name in baselines)} |"]
    lines.append("|---" * (2 + len(baselines)) + "|")
    for name, row in rows.items():
        ratios = " | ".join(f"{row['median'] / rows[baseline]['median']:.3f}" for baseline in baselines)
        lines.append(f"| {name} | {row['median']:.4g} ({row['q1']:.4g}-{row['q3']:.4g}) | {ratios} |")
    return lines


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    lines = ["# Time of a fine-tuning step", ""]
    lines += [", ".join(f"{name} {value}" for name, value in results["machine"].items() if value), ""]
    lines += [f"{results['clips']} clips of {results['crop']}x{results['crop']}. {EXPLANATION}"]
    lines += table("Blur model alone, forward and backward", results["alone"], [WARP])
    for name, rows in results["steps"].items():
        lines += table(f"Step of `{name}`", rows, [BASELINE, WARP])
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write after every table, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["unet", "dbn"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="about how long each contestant may take")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    output = arguments.output or OUTPUT / f"flow_step_{device.type}"
    torch.manual_seed(0)

    def measured(runs: dict[str, Run], repeats: int) -> dict[str, dict[str, float]]:
        return {name: summary(row) for name, row in interleaved(runs, repeats, device, arguments.seconds).items()}

    results: dict[str, Any] = {"machine": machine(device), "clips": arguments.clips, "crop": arguments.crop}
    results |= {"alone": measured(alone(arguments, device), 4 * arguments.repeats), "steps": {}}
    for name in arguments.networks:
        results["steps"][name] = measured(steps(name, arguments, device), arguments.repeats)
        write(results, markdown(results), output)
    print(markdown(results))


if __name__ == "__main__":
    main()
