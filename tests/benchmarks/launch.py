"""What a call of the blur costs the host on its way to the GPU: all but the kernels, on any machine.

    python -m tests.benchmarks.launch                        # writes docs/results/launch.{json,md}
    python -m tests.benchmarks.launch --against CHECKOUT     # also an older checkout of this package, in turns

Triton runs as for a real device, its own launch from Python included, up to the call of the driver, which is left out:
the kernels are compiled (or found in Triton's cache), their arguments bound and looked at, and nothing is computed.
Tensors lie on the CPU, so torch's allocations are real and small.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.benchmarks.contract import Run, machine, write

ROOT = Path(__file__).parents[2]
SIZE = (1, 3, 8, 8)
CALLS, ROUNDS = 200, 15
EXPLANATION = """\
Microseconds of the host for one call, image and both flows with gradients: median over rounds of each round's median
call, contestants in turns. Kernels are replaced by nothing; the driver's own launch is not counted, nor a look at the
environment that tensors of a GPU do without. **public** is
`flow_kernel_blur` or `flow_line_blur` as a user calls it, **operator** the registered operator that `torch.compile`,
`torch.export` and `vmap` keep, **autograd** an empty function of three tensors, which nothing can undercut.
Made by `python -m tests.benchmarks.launch`."""


class NoDevice:
    """A driver of Triton for an sm_90 that is not there: compiles, and launches nothing."""

    def __init__(self) -> None:
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: {"max_shared_mem": 1 << 17},
            load_binary=lambda *arguments: ("module", 0, 0, 0, 1024),  # without a module Triton loads at every launch
            unload_module=lambda module: None,
        )

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        """What would hand the arguments to the driver."""
        return lambda *arguments: None

    def get_current_device(self) -> int:
        """Its number."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default stream."""
        return 0

    def get_current_target(self) -> Any:
        """What to compile for."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        return tensors[0].new_empty(tensors[0].shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ctx.saved_tensors


def contestants() -> dict[str, Run]:
    """Both models by both roads, forward and forward + backward."""
    import triton

    from reblurkit.blur import backends, flow_kernel_blur, flow_line_blur
    from reblurkit.blur.backends.triton import host

    assert host
    triton.runtime.driver.set_active(NoDevice())
    # From here on the kernels are compiled ones, and the backend takes tensors of the CPU.
    # Tensors of a GPU are taken without a look at the environment: a plain dict costs next to nothing.
    os.environ = dict(os.environ) | {"TRITON_INTERPRET": "1"}  # type: ignore[assignment]  # noqa: B003
    batch, _, height, width = SIZE
    inputs = [torch.rand(batch, channels, height, width).requires_grad_() for channels in (3, 2, 2)]
    grad = torch.rand(SIZE)
    roads: dict[str, Callable[..., torch.Tensor]] = {
        "autograd": _Nothing.apply,
        "table, public": lambda *x: flow_kernel_blur(*x, backend="triton"),
        "line, public": lambda *x: flow_line_blur(*x, backend="triton"),
    }
    if hasattr(backends, "operator"):
        road = backends.operator.blur_by_operator
        roads["table, operator"] = lambda *x: road(*x, 1.0, 16, "triton", True)
        roads["line, operator"] = lambda *x: road(*x, 1.0, None, "triton", True)

    def inference(road: Callable[..., torch.Tensor]) -> Run:
        def run() -> None:
            with torch.no_grad():
                road(*inputs)

        return run

    runs: dict[str, Run] = {f"{name}, forward": inference(road) for name, road in roads.items()}
    runs |= {
        f"{name}, both": lambda road=road: torch.autograd.grad(road(*inputs), inputs, grad)
        for name, road in roads.items()
    }
    return runs


def one_round(runs: dict[str, Run]) -> dict[str, float]:
    """Median microseconds of every run; the first call, which compiles, is not counted."""
    medians = {}
    for name, run in runs.items():
        times = []
        for _ in range(CALLS):
            start = time.perf_counter()
            run()
            times.append(1e6 * (time.perf_counter() - start))
        medians[name] = statistics.median(times)
    return medians


def serve() -> None:
    """Print the medians of a round for every line that comes in."""
    runs = contestants()
    for _ in sys.stdin:
        print(json.dumps(one_round(runs)), flush=True)


def measure(checkouts: dict[str, Path]) -> dict[str, dict[str, list[float]]]:
    """Rounds of every checkout in turns, each in a process of its own; the first one warms up."""
    workers = {}
    for name, path in checkouts.items():
        environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
        environment.pop("TRITON_INTERPRET", None)
        command = [sys.executable, __file__, "--serve"]
        workers[name] = subprocess.Popen(
            command, env=environment, cwd=path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    rounds: dict[str, dict[str, list[float]]] = {name: {} for name in workers}
    for number in range(ROUNDS + 1):
        for name, worker in workers.items():
            assert worker.stdin
            assert worker.stdout
            print("", file=worker.stdin, flush=True)
            for contestant, time_ in json.loads(worker.stdout.readline()).items():
                if number:
                    rounds[name].setdefault(contestant, []).append(time_)
    for worker in workers.values():
        worker.communicate()
    return rounds


def markdown(results: dict[str, Any]) -> str:
    """The table, for people."""
    lines = ["# What a call of the blur costs the host", ""]
    lines += [", ".join(f"{name} {value}" for name, value in results["machine"].items() if value), ""]
    lines += [EXPLANATION, ""]
    base = results["this"]
    lines += ["| call | this | " + ("older | this / older |" if "older" in results else "|")]
    lines += ["|---|---|" + ("---|---|" if "older" in results else "")]
    for name, time_ in base.items():
        older = results.get("older", {}).get(name)
        lines.append(f"| {name} | {time_:.0f} | " + (f"{older:.0f} | {time_ / older:.2f} |" if older else " | |"))
    lines += [""]
    for model in ("table", "line"):
        for what in ("forward", "both"):
            ratio = base[f"{model}, public, {what}"] / base[f"{model}, operator, {what}"]
            lines.append(f"- {model}, {what}: public / operator {ratio:.2f}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="an older checkout of this package")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "launch")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    checkouts = {"this": ROOT} | ({"older": arguments.against.resolve()} if arguments.against else {})
    results: dict[str, Any] = {"machine": machine(torch.device("cpu"))}
    for name, rounds in measure(checkouts).items():
        results[name] = {contestant: statistics.median(times) for contestant, times in rounds.items()}
    text = markdown(results)
    write(results, text, arguments.output)
    print(text)


if __name__ == "__main__":
    main()
