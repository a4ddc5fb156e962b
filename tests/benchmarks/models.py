"""Size, work, receptive field and CPU time of the deblurring networks.

python -m tests.benchmarks.models                    # all, writes docs/results/models_cpu.{json,md}
python -m tests.benchmarks.models srn dhn            # these only; the other rows stay as they are
python -m tests.benchmarks.models --facts            # without times, which take minutes per network
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reblurkit.core.calls import finest_scale
from reblurkit.models import create_model, list_models
from tests.benchmarks.contract import Run, interleaved, machine, summary, write

OUTPUT = Path(__file__).parents[2] / "docs" / "results" / "models_cpu"
SIZE = (256, 256)
LARGE = (720, 1280)
BASELINE = "its layers alone"
EXPLANATION = """\
FLOPs count a multiplication and an addition as two, in convolutions and matrix products; sizes that do not divide are
rounded up. The receptive field is the width of what one output pixel depends on, found by sending NaN through a narrow
network. Times are medians in milliseconds with first and third quartile for one image of 256x256; a training step is
forward, the mean magnitude of every output, and backward. The baseline runs the network's layers (convolutions, norms,
activations, pooling) one after the other in PyTorch's default layout, with nothing between them: no sums, products,
concatenations or attention. The plainest implementation of the same network cannot do without what it does. "Its
operations alone" are all of them, as `torch.export` lists them, without modules, checks and branches. All contestants
of a row ran in turns in one process. Made by
`python -m tests.benchmarks.models`."""


def image(network: nn.Module, size: tuple[int, int], **options: Any) -> Tensor:
    """A random image, or clip where the network takes clips, rounded up to a size that it takes."""
    multiple = getattr(network, "multiple", 1)
    height, width = (-(-side // multiple) * multiple for side in size)
    frames = [network.frames] if hasattr(network, "frames") else []
    return torch.rand(1, *frames, 3, height, width, **options)


def gigaflops(name: str, size: tuple[int, int]) -> float:
    """Billions of operations of a forward pass, counted without computing."""
    with torch.device("meta"):
        network = create_model(name).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(image(network, size))
    return counter.get_total_flops() / 1e9


def receptive_field(name: str, size: int = 6144) -> int | None:
    """Columns from the first to the last that an output pixel depends on; None if that is the whole image.

    Networks that cut into patches are measured away from the cuts.

    A column of NaN spreads to every output that depends on it, also through sums that cancel and where no gradient
    passes; double precision keeps to convolutions that touch nothing but their taps. Where it spreads repeats with
    the network's stride.
    """
    network = _narrow(name).double().eval()
    period = max(getattr(network, "multiple", 1), 16)
    height = max(32, getattr(network, "smallest", 1))
    first, last = torch.full((period,), size), torch.full((period,), -size)
    for column in range(size // 4, size // 4 + period):
        blurry = image(network, (height, size), dtype=torch.float64)
        blurry[..., column] = torch.nan
        with torch.no_grad():
            reached = finest_scale(network(blurry)).isnan().flatten(0, 2).any(0).nonzero()[:, 0]
        if len(reached) == size:
            return None
        if reached[0] == 0:
            raise RuntimeError(f"the receptive field of {name} is larger than half of {size} columns")
        first.scatter_reduce_(0, reached % period, column - reached, "amin")
        last.scatter_reduce_(0, reached % period, column - reached, "amax")
    return int((last - first).max()) + 1


def _narrow(name: str) -> nn.Module:
    """The network with few channels, if its class has an argument for them."""
    arguments = inspect.signature(type(create_model(name))).parameters
    if "width" in arguments:
        return create_model(name, width=4)
    if "widths" in arguments:
        return create_model(name, widths=(2,) * len(arguments["widths"].default))
    return create_model(name)


def times(name: str, repeats: int, seconds: float) -> dict[str, Any]:
    """Forward and training step of the network in several ways, beside the baseline."""
    device = torch.device("cpu")
    network = create_model(name)
    blurry = image(network, SIZE)
    ways: dict[str, tuple[nn.Module, Tensor]] = {"eager": (network, blurry)}
    if blurry.ndim == 4:
        last = create_model(name).to(memory_format=torch.channels_last)
        ways["channels_last"] = (last, blurry.to(memory_format=torch.channels_last))
    ways["its operations alone"] = (_operations(name, blurry), blurry)
    ways["compiled"] = (torch.compile(network), blurry)
    layers = _layers(network, blurry)
    passes: dict[str, dict[str, Run]] = {"forward": {BASELINE: lambda: _replay(layers, False)}}
    passes["training step"] = {BASELINE: lambda: _replay(layers, True)}
    for way, (module, batch) in ways.items():
        passes["forward"][way] = _forward(module, batch)
        passes["training step"][way] = _step(module, batch)
    rows = {}
    for kind, runs in passes.items():
        for module, _ in ways.values():
            module.train(kind == "training step")
        rows[kind] = {way: summary(row) for way, row in interleaved(runs, repeats, device, seconds).items()}
    return rows


def _operations(name: str, blurry: Tensor) -> nn.Module:
    """The network as nothing but a list of operations on tensors."""
    program = torch.export.export(create_model(name).train(), (blurry,)).module()
    # its mode is that of the export
    program.train = program.eval = lambda *_: program  # type: ignore[method-assign]
    return program


def _forward(network: nn.Module, batch: Tensor) -> Run:
    def run() -> None:
        with torch.no_grad():
            network(batch)

    return run


def _step(network: nn.Module, batch: Tensor) -> Run:
    def run() -> None:
        network.zero_grad()
        output = network(batch)
        sum(scale.abs().mean() for scale in (output if isinstance(output, list | tuple) else [output])).backward()

    return run


def _layers(network: nn.Module, batch: Tensor) -> list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]:
    """Every call of a layer, with an input and an output gradient of its shapes; equal shapes share their memory."""
    calls: list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]] = []
    inputs: dict[torch.Size, Tensor] = {}
    gradients: dict[torch.Size, Tensor] = {}

    def note(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        image = arguments[0]
        plain = copy.copy(layer)  # with the same weights
        if hasattr(plain, "inplace"):
            plain.inplace = False  # a leaf cannot be overwritten
        if image.shape not in inputs:
            inputs[image.shape] = torch.rand_like(image).requires_grad_()
        if output.shape not in gradients:
            gradients[output.shape] = torch.rand_like(output)
        calls.append((plain.forward, inputs[image.shape], gradients[output.shape]))

    # not the containers, nor what does nothing
    layers = [layer for layer in network.modules() if not [*layer.children()] and not isinstance(layer, nn.Identity)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        network(batch)
    for hook in hooks:
        hook.remove()
    return calls


def _replay(layers: list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]], backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        for layer, batch, gradient in layers:
            output = layer(batch)
            if backward:
                batch.grad = None
                output.backward(gradient)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    print(name, file=sys.stderr, flush=True)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in create_model(name).parameters())
    row: dict[str, Any] = {
        "parameters": parameters,
        "GFLOPs 256x256": gigaflops(name, SIZE),
        "GFLOPs 1280x720": gigaflops(name, LARGE),
        "receptive field": receptive_field(name),
    }
    if not arguments.facts:
        row["times"] = times(name, arguments.repeats, arguments.seconds)
    return row


def markdown(results: dict[str, Any]) -> str:
    """The tables, for people."""
    lines = ["# Deblurring networks: size, work and speed", ""]
    lines += [", ".join(f"{name} {value}" for name, value in results["machine"].items() if value), ""]
    lines += [EXPLANATION, "", "| network | parameters | GFLOPs, 256x256 | GFLOPs, 1280x720 | receptive field |"]
    lines += ["|---|---|---|---|---|"]
    for name, row in results["models"].items():
        field = row["receptive field"] or "whole image"
        flops = f"{row['GFLOPs 256x256']:.4g} | {row['GFLOPs 1280x720']:.4g}"
        lines.append(f"| `{name}` | {row['parameters']:,} | {flops} | {field} |")
    timed = {name: row["times"] for name, row in results["models"].items() if "times" in row}
    for kind in ("forward", "training step"):
        if timed:
            lines += [
                "",
                f"## {kind.capitalize()}",
                "",
                "| network | way | ms | this / baseline |",
                "|---|---|---|---|",
            ]
        for name, passes in timed.items():
            baseline = passes[kind][BASELINE]["median"]
            for way, row in passes[kind].items():
                cell = f"{row['median']:.4g} ({row['q1']:.4g}-{row['q3']:.4g})"
                lines.append(f"| `{name}` | {way} | {cell} | {row['median'] / baseline:.3g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write after every network, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="names; default: every deblurring network")
    parser.add_argument("--facts", action="store_true", help="no times")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="about how long each contestant may take")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    stored = arguments.output.with_suffix(".json")
    models = json.loads(stored.read_text())["models"] if stored.exists() else {}
    for name in arguments.models or list_models("deblur"):
        torch.manual_seed(0)
        torch.compiler.reset()
        models[name] = {**models.get(name, {}), **measure(name, arguments)}
        results = {"machine": machine(torch.device("cpu")), "models": dict(sorted(models.items()))}
        write(results, markdown(results), arguments.output)
    print(arguments.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
