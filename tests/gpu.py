"""Everything that wants a GPU, in one command: ``nox -s gpu``, or ``python -m tests.gpu [PART ...]``.

Each part has a time; one that has no GPU, no program or no time left is left out, and the end says so.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-m"]
BENCHMARKS = ("blur", "step", "flow_step", "translation_step", "adaptation")


class Part(NamedTuple):
    """A command, the seconds it may take, and a program that it needs."""

    command: list[str]
    seconds: float
    needs: str | None = None


def parts() -> dict[str, Part]:
    """All parts by name, in their order."""
    tests = [*PYTHON, "pytest", "-m", "gpu", "-p", "no:cacheprovider"]
    # Every access of every kernel is looked at: the smallest problem of each model.
    checked = [*tests, "tests/blur/test_gpu.py", "-k", "definition_in_double_precision"]
    chosen = {
        "tests": Part([*tests, "-n", "4", "--dist", "worksteal"], 100),
        "sanitizer": Part(["compute-sanitizer", "--error-exitcode", "9", *checked], 60, "compute-sanitizer"),
    }
    for name in BENCHMARKS:
        chosen[name] = Part([*PYTHON, f"tests.benchmarks.{name}", "--device", "cuda"], 90)
    return chosen


def attempt(part: Part) -> str:
    """Run a part; what became of it in a few words."""
    if part.needs and not shutil.which(part.needs):
        return f"left out: {part.needs} is not installed"
    start = time.monotonic()
    try:
        done = subprocess.run(part.command, cwd=ROOT, timeout=part.seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"left out: not done after {part.seconds:.0f} s"
    took = f"{time.monotonic() - start:.0f} s"
    return f"passed in {took}" if done.returncode == 0 else f"failed with status {done.returncode} in {took}"


def main(names: list[str] | None = None) -> int:
    """Run the parts asked for, all by default; 1 if one failed."""
    known = parts()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"of {', '.join(known)}; default: all")
    chosen = parser.parse_args(names).part or list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if not torch.cuda.is_available():
        outcomes = dict.fromkeys(chosen, "left out: no GPU here")
    else:
        outcomes = {}
        for name in chosen:
            print(f"== {name}", flush=True)
            outcomes[name] = attempt(known[name])
    for name in known:
        print(f"{name}: {outcomes.get(name, 'left out: not asked for')}")
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
