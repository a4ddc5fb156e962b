"""Speed and memory of the blur models and their backends, against each other and against what others offer.

    python -m tests.benchmarks.blur                  # CPU, writes docs/results/blur_cpu.{json,md}
    python -m tests.benchmarks.blur --device cuda    # GPU; also equality, atomics, memory checker

The blur from deepinv is measured where that package is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from reblurkit.blur import flow_kernel_blur, flow_line_blur, flow_warp_blur, kernel_table
from reblurkit.blur.backends import choose
from reblurkit.blur.reference import dense_flow_kernel_blur
from reblurkit.blur.table import merged_cells
from reblurkit.errors import BackendError
from tests.benchmarks.contract import Run, cell, heading, interleaved, machine, peak_memory, summary, write

ROOT = Path(__file__).parents[2]
SIZES = {
    "cpu": [(10, 3, 128, 128), (1, 3, 720, 1280)],
    "cuda": [(10, 3, 128, 128), (1, 3, 720, 1280), (8, 3, 720, 1280)],
}
SMALL = (1, 3, 128, 128)  # for peers that need a kernel per pixel or a filter per table entry
Model = Callable[..., torch.Tensor]
EXPLANATION = """\
Times are medians in milliseconds with first and third quartile; all contestants of a table ran in turns in one process.
Memory is what forward + backward takes beyond its inputs. A floor is the least time for forward + backward, the larger
of bytes to move and instructions to issue; in brackets, how much of it is reached. Flows are smooth, up to 12 pixels.
Made by `python -m tests.benchmarks.blur`."""


def workload(size: tuple[int, ...], device: torch.device) -> list[torch.Tensor]:
    """Random image and two smooth flows up to about 12 pixels."""
    torch.manual_seed(0)
    batch, _, height, width = size
    coarse = [(2 * torch.rand(batch, 2, 5, 6) - 1) * 12 for _ in range(2)]
    flows = [F.interpolate(flow, size=(height, width), mode="bicubic") for flow in coarse]
    return [value.to(device).requires_grad_() for value in (torch.rand(size), *flows)]


def contestants(size: tuple[int, ...], device: torch.device) -> dict[str, Model]:
    """Ours by every backend that works here, the paper's cheap model, and the dense definition where it fits."""
    models: dict[str, Model] = {"warp": flow_warp_blur, "warp, 8 samples": lambda *x: flow_warp_blur(*x, samples=8)}
    for backend in ("triton", "numba", "torch"):
        try:
            choose(backend, device)
        except BackendError:
            continue
        models[f"table, {backend}"] = lambda *x, backend=backend: flow_kernel_blur(*x, backend=backend)
        models[f"line, {backend}"] = lambda *x, backend=backend: flow_line_blur(*x, backend=backend)
    memory = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 12e9
    if 47e3 * size[0] * size[2] * size[3] < memory:
        models["dense"] = dense_flow_kernel_blur
    return models


def measure(size: tuple[int, ...], device: torch.device, repeats: int) -> dict[str, Any]:
    """Inference, forward plus backward for image and both flows, and peak memory, of every contestant."""
    inputs = workload(size, device)
    grad = torch.rand(size, device=device)
    models = contestants(size, device)

    def inference(model: Model) -> Run:
        def run() -> None:
            with torch.no_grad():
                model(*inputs)

        return run

    def training(model: Model) -> Run:
        return lambda: torch.autograd.grad(model(*inputs), inputs, grad)

    forward = interleaved({name: inference(model) for name, model in models.items()}, repeats, device)
    both = interleaved({name: training(model) for name, model in models.items()}, repeats, device)
    limits = floors(inputs, device)
    rows = {}
    for name, model in models.items():
        rows[name] = {
            "inference ms": summary(forward[name]),
            "forward + backward ms": summary(both[name]),
            "peak MB": peak_memory(training(model), device),
            "floors ms": limits.get(name.split(",")[0]),
        }
    return rows


def floors(inputs: list[torch.Tensor], device: torch.device) -> dict[str, dict[str, float]]:
    """Least milliseconds for forward + backward: by bytes that must move, and by instructions that must issue.

    Bytes: forward reads the image and four flow components and writes the blur; backward reads the gradient, image
    and flows again and writes three gradients. Instructions: per tap on CUDA those counted in the compiled kernels
    (forward 32, image gradient 36, flow gradient 34 per tap and thread of a warp of 32); on the CPU five vector
    operations of four channels forward (one load, four multiply-adds) and three backward, two per cycle.
    """
    image, *flows = inputs
    batch, channels, height, width = image.shape
    pixels = batch * height * width
    moved = 4 * pixels * (2 * channels + 4 + 3 * channels + 8)
    buffer = torch.empty(1 << 26, device=device)
    other = torch.empty_like(buffer)
    copies = interleaved({"copy": lambda: other.copy_(buffer)}, 5, device)["copy"]
    bandwidth = 8 * len(buffer) / min(copies) * 1e3

    motion = torch.stack([flow.detach() for flow in flows])
    corner = motion.clamp(-16, 16).floor().clamp(max=15).long() + 16
    counts = merged_cells(16, torch.float32, device).start.diff()
    taps = float(counts[corner[:, :, 1] * 32 + corner[:, :, 0]].sum())
    pairs = float((motion.abs().amax(dim=2).floor() + 2).sum())
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        clock = 1e3 * getattr(properties, "clock_rate", 1.98e6)
        rate = properties.multi_processor_count * 4 * clock * 32
        per_tap = 32 + 36 + 34
    else:
        rate, per_tap = torch.get_num_threads() * _cpu_clock() * 2, 5 + 3
    by_bytes = 1e3 * moved / bandwidth
    return {
        "table": {"bytes": by_bytes, "issue": 1e3 * taps * per_tap / rate, "taps per pixel": taps / pixels},
        "line": {"bytes": by_bytes, "issue": 1e3 * 2 * pairs * per_tap / rate, "taps per pixel": 2 * pairs / pixels},
    }


def _cpu_clock() -> float:
    info = Path("/proc/cpuinfo")
    clocks = [line for line in info.read_text().splitlines() if line.startswith("cpu MHz")] if info.exists() else []
    return 1e6 * float(clocks[0].split(":")[1]) if clocks else 3e9


def peers(device: torch.device, repeats: int) -> dict[str, Any]:
    """Forward only, kernels given: what else computes a kernel per pixel, and how far its result is from ours."""
    image, *flows = (value.detach() for value in workload(SMALL, device))
    table = kernel_table().to(device, torch.float32)
    kernels, weights, chosen = _kernels(table, flows)
    padded = F.pad(image, [16] * 4, mode="replicate")

    def unfold() -> torch.Tensor:
        patches = F.unfold(padded, 33).view(1, 3, 33 * 33, -1)
        return torch.einsum("bckn,bkn->bcn", patches, kernels).view(SMALL)

    runs: dict[str, Callable[[], torch.Tensor]] = {
        f"table, {choose('auto', device)}": lambda: flow_kernel_blur(image, *flows),
        "table, torch": lambda: flow_kernel_blur(image, *flows, backend="torch"),
        "unfold + einsum, kernels prebuilt": unfold,
    }
    if importlib.util.find_spec("deepinv"):
        from deepinv.physics.functional import product_convolution2d

        filters = table.flatten(0, 1)[chosen].flip(-2, -1)[None, None]
        # By FFT, its faster way for kernels of this size.
        runs[f"deepinv product_convolution2d by FFT, {len(chosen)} filters"] = lambda: product_convolution2d(
            image, weights, filters, padding="replicate", use_fft=True, mask_first=False
        )
    expected = dense_flow_kernel_blur(image.double(), *(flow.double() for flow in flows))
    times = interleaved(runs, repeats, device)
    return {
        name: {
            "forward ms": summary(times[name]),
            "largest error": (run().double() - expected).abs().max().item(),
        }
        for name, run in runs.items()
    }


def _kernels(table: torch.Tensor, flows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kernel of every pixel ``(1, 1089, H * W)``; the same as weights ``(1, 1, K, H, W)`` of the K entries in use."""
    height, width = flows[0].shape[2:]
    weights = table.new_zeros(33 * 33, height * width)
    pixel = torch.arange(height * width, device=table.device)
    for flow in flows:
        u, v = flow[0].clamp(-16, 16).flatten(1)
        i, j = u.floor().clamp(max=15), v.floor().clamp(max=15)
        for down in (0, 1):
            for right in (0, 1):
                share = (1 - (u - i - right).abs()) * (1 - (v - j - down).abs()) / 2
                weights[((j + down + 16) * 33 + i + right + 16).long(), pixel] += share
    kernels = (table.flatten(0, 1).flatten(1).T @ weights)[None]
    chosen = weights.any(dim=1).nonzero()[:, 0]
    return kernels, weights[chosen].view(1, 1, -1, height, width), chosen


def gpu_checks(device: torch.device) -> dict[str, Any]:
    """Equality with the definition on the device, the rate of v4 atomics."""
    inputs = workload((2, 3, 45, 52), device)
    grad = torch.rand(2, 3, 45, 52, device=device)
    doubled = [value.detach().double().requires_grad_() for value in inputs]
    expected = dense_flow_kernel_blur(*doubled)
    wanted = [expected, *torch.autograd.grad(expected, doubled, grad.double())]
    output = flow_kernel_blur(*inputs, backend="triton")
    results = [output, *torch.autograd.grad(output, inputs, grad)]
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(results, wanted, strict=True)]
    checks: dict[str, Any] = {"relative error (output, image, flows)": errors, "v4 atomics GB/s": atomics(device)}
    return checks


def atomics(device: torch.device) -> dict[str, float]:
    """Gigabytes per second of four-number additions, when neighbours add to neighbours and when all add at random."""
    from tests.benchmarks.atomics import add_rows

    rows = 1 << 22
    target = torch.zeros(rows, 4, device=device)
    order = {"in order": torch.arange(rows, device=device), "at random": torch.randperm(rows, device=device)}
    runs = {name: lambda index=index: add_rows(target, index.int()) for name, index in order.items()}
    return {name: rows * 16 / min(times) / 1e6 for name, times in interleaved(runs, 20, device).items()}


def markdown(results: dict[str, Any]) -> str:
    """The tables, for people."""
    lines = heading("Blur models: speed and memory", results, EXPLANATION)
    for size, rows in results["models"].items():
        baseline = rows.get("dense", rows["warp"])["forward + backward ms"]["median"]
        versus = "dense" if "dense" in rows else "warp"
        lines += [
            f"## {size}",
            "",
            f"| model, backend | inference | forward + backward | {versus} / this | peak MB | floor |",
        ]
        lines += ["|---|---|---|---|---|---|"]
        for name, row in rows.items():
            both, floor = row["forward + backward ms"], row["floors ms"]
            least = max(floor["bytes"], floor["issue"]) if floor else None
            reached = f"{least:.3g} ({100 * least / both['median']:.0f} %)" if least else ""
            lines.append(
                f"| {name} | {cell(row['inference ms'])} | {cell(both)} | {baseline / both['median']:.3g} | "
                f"{row['peak MB']:.0f} | {reached} |"
            )
        lines.append("")
    if peers := results["peers"]:
        first, *_ = peers.values()
        lines += [f"## Peers, forward only, {'x'.join(map(str, SMALL))}", ""]
        lines += ["| method | forward | this / ours | largest error |", "|---|---|---|---|"]
        for name, row in peers.items():
            ratio = row["forward ms"]["median"] / first["forward ms"]["median"]
            lines.append(f"| {name} | {cell(row['forward ms'])} | {ratio:.3g} | {row['largest error']:.0e} |")
    if "gpu" in results:
        lines += ["", "## GPU checks", "", *(f"- {name}: {value}" for name, value in results["gpu"].items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, help="default: docs/results/blur_DEVICE")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    output = arguments.output or ROOT / "docs" / "results" / f"blur_{device.type}"
    results: dict[str, Any] = {"machine": machine(device), "models": {}, "peers": {}}
    if device.type == "cuda":
        results["gpu"] = gpu_checks(device)
    for size in SIZES[device.type]:
        results["models"]["x".join(map(str, size))] = measure(size, device, arguments.repeats)
        write(results, markdown(results), output)  # what has been measured is kept, should the time be over
    results["peers"] = peers(device, arguments.repeats)
    text = markdown(results)
    write(results, text, output)
    print(text)


if __name__ == "__main__":
    main()
