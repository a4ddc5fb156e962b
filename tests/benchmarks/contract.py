"""How every benchmark of this package measures.

Contestants of one table run in one process, in turns, after a warm-up: a machine that slows down slows all of them. The
table gives the median and the spread (first to third quartile); comparisons are ratios of medians against a named
baseline. Machine facts go into the JSON; losses are published with wins.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Run = Callable[[], Any]


def interleaved(
    runs: dict[str, Run], repeats: int, device: torch.device, seconds: float = 60
) -> dict[str, list[float]]:
    """Milliseconds of every run; slow ones are repeated less, within about ``seconds`` each (but once at least)."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        print(f"  {name}", file=sys.stderr, flush=True)
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            if sum(times[name]) < 1000 * seconds:
                times[name].append(elapsed(run, device))
    return times


def elapsed(run: Run, device: torch.device) -> float:
    """Milliseconds of one run, by the device's own clock on CUDA."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - start)
    start_event, end_event = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start_event.record()
    run()
    end_event.record()
    torch.cuda.synchronize()
    return float(start_event.elapsed_time(end_event))


def peak_memory(run: Run, device: torch.device) -> float:
    """Megabytes of tensors that one run takes beyond what was in use before it, as torch's allocator counts them."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(taken, default=0) / 1e6


def summary(times: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return {"median": statistics.median(times), "q1": quartiles[0], "q3": quartiles[2], "repeats": len(times)}


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    facts = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    facts |= {name: _version(name) for name in ("torch", "numba", "triton", "numpy", "deepinv")}
    facts |= {name: value for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")}
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(results: dict[str, Any], markdown: str, path: Path) -> None:
    """``path.json`` and ``path.md``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown)


def heading(title: str, results: Mapping[str, Any], explanation: str) -> list[str]:
    """The first lines of a table for people: what it is, and the machine it was measured on."""
    facts = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value)
    return [f"# {title}", "", facts, "", explanation, ""]


def cell(row: Mapping[str, float]) -> str:
    """A median and its spread."""
    return f"{row['median']:.3g} ({row['q1']:.3g}-{row['q3']:.3g})"
