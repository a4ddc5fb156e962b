"""Damaged and hostile files in a process that may die of them: ``python -m tests.fuzz --seconds 600``.

What is counted: inputs, refused with an error of this package, accepted, other errors, crashes, readings past their
time, and code that was executed. Status 1 if any of the last four is not zero. Inputs of these are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import hostile
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import Format, formats

ROOT = Path(__file__).parents[2]
OUTCOMES = ("refused", "accepted", "untyped", "crash", "over time", "executed")
FAILURES = OUTCOMES[2:]
SECONDS = 20.0  # that one reading may take


class Child:
    """The process that reads; started anew when it has died."""

    command = (sys.executable, "-m", "tests.fuzz.child")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start the process, and wait until it can read."""
        self._log = (self._folder / "stderr.txt").open("w")
        self._process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answer(300)  # libraries are imported

    def read(self, name: str, path: Path) -> dict[str, str]:
        """What became of a file; ``seconds`` is how long it took."""
        if self._process.poll() is not None:
            self.start()
        assert self._process.stdin is not None
        start = time.monotonic()
        self._process.stdin.write(json.dumps([name, str(path)]) + "\n")
        self._process.stdin.flush()
        found = self._answer(SECONDS)
        self.seconds = time.monotonic() - start
        if found["outcome"] in ("crash", "over time"):
            self.close()
        return found

    def _answer(self, seconds: float) -> dict[str, str]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return {"outcome": "over time", "what": f"more than {seconds:.0f} s"}
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        told = (self._folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
        return {"outcome": "crash", "what": f"status {self._process.wait()}: {' | '.join(told[:6])}"}

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            pipe.close()


class Result(NamedTuple):
    """How many inputs of each format had which outcome, the longest reading in seconds, and the failures' files."""

    counts: dict[str, Counter[str]]
    slowest: dict[str, float]
    failures: dict[str, Path]


def fuzz(names: list[str], *, count: int, seconds: float, seed: int, keep: Path) -> Result:
    """Read hostile files, then mutations, until there are enough or the time is over."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    slowest = dict.fromkeys(names, 0.0)
    failures: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        canary = folder / "canary"
        child = Child(folder)
        end = time.monotonic() + seconds
        try:
            for name, content in _inputs(names, random.Random(seed), folder, canary):
                if sum(map(Counter.total, counts.values())) >= count or time.monotonic() > end:
                    break
                suffix = formats()[name].suffix
                path = folder / f"input{suffix}"
                path.write_bytes(content)
                found = child.read(name, path)
                slowest[name] = max(slowest[name], child.seconds)
                if canary.exists():
                    canary.unlink()
                    found = {"outcome": "executed", "what": found["what"]}
                counts[name][found["outcome"]] += 1
                what = f"{name}: {found['outcome']}: {' '.join(found['what'].split())[:300]}"
                if found["outcome"] in FAILURES and what not in failures:
                    keep.mkdir(parents=True, exist_ok=True)
                    kept = keep / f"{len(failures)}-{name}{suffix}"
                    kept.write_bytes(content)
                    failures[what] = kept
        finally:
            child.close()
    return Result(counts, slowest, failures)


def _inputs(names: list[str], random_: random.Random, folder: Path, canary: Path):
    """Hostile files, then mutations without end, as format and content."""
    hostile.plant(folder, canary)
    for name, content in hostile.files(folder, canary):
        if name in names:
            yield name, content
    known: dict[str, Format] = formats()
    samples = {name: known[name].samples(folder) for name in names}
    shares = [known[name].share for name in names]
    while True:
        (name,) = random_.choices(names, shares)
        yield name, mutated(random_.choice(samples[name]), name, random_, samples[name])


def table(result: Result) -> list[str]:
    """The counts as a table."""
    counts = {**result.counts, "all": sum(result.counts.values(), Counter())}
    slowest = {**result.slowest, "all": max(result.slowest.values())}
    lines = ["| format | inputs | " + " | ".join(OUTCOMES) + " | longest, s |", "|---" * (len(OUTCOMES) + 3) + "|"]
    for name, counter in counts.items():
        cells = [name, counter.total(), *(counter[each] for each in OUTCOMES), f"{slowest[name]:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def main(words: list[str] | None = None) -> int:
    """Run; 1 if anything failed."""
    known = list(formats())
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("format", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--seconds", type=float, default=60, help="how long at most (default: 60)")
    parser.add_argument("--count", type=int, default=10**9, help="how many inputs at most (default: no limit)")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other mutations (default: 0)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that failed")
    parser.add_argument("--write", action="store_true", help="write docs/results/fuzz.md")
    options = parser.parse_args(words)
    if unknown := set(options.format) - set(known):
        parser.error(f"no such format: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    start = time.monotonic()
    result = fuzz(
        options.format or known, count=options.count, seconds=options.seconds, seed=options.seed, keep=options.keep
    )
    lines = table(result)
    print("\n".join(lines))
    for what, kept in result.failures.items():
        print(f"{what}; kept as {kept}")
    if options.write:
        took = f"{time.monotonic() - start:.0f} s, seed {options.seed}"
        text = (
            "# Damaged and hostile files\n\n"
            f"`python -m tests.fuzz --seconds {options.seconds:.0f} --write`: {took}. Refused: with an error of this "
            "package. Accepted: what is damaged is not what is read, or still makes sense. Untyped: any other error. "
            f"Over time: more than {SECONDS:.0f} s. Executed: code in or beside the file was run.\n\n"
        )
        (ROOT / "docs" / "results" / "fuzz.md").write_text(text + "\n".join(lines) + "\n")
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main())
