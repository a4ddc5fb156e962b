"""Damaged and hostile inputs in a process that may die of them: ``python -m tests.fuzz --seconds 600``.

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
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import hostile as hostile_files
from tests.fuzz import names as hostile_names
from tests.fuzz import servers
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import Format, formats

ROOT = Path(__file__).parents[2]
OUTCOMES = ("refused", "accepted", "untyped", "crash", "over time", "executed")
FAILURES = OUTCOMES[2:]
SECONDS = 20.0  # that one reading may take
RECIPES: dict[str, Callable[[random.Random], bytes]] = {"names": hostile_names.recipe, "downloads": servers.recipe}
_STARTS = 3  # tries


class Child:
    """The process that reads; started anew when it has died."""

    command = (sys.executable, "-m", "tests.fuzz.child")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the process, and wait until it can read: libraries are imported."""
        for _ in range(_STARTS):
            self._number, self._left = 0, b""
            self._log = (self._folder / "stderr.txt").open("w")
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0
            )
            found = self._answer(300)
            if "outcome" not in found:
                return self.process
            self.close()
        raise RuntimeError(f"the process that reads has not started: {found['what']}")

    def read(self, name: str, path: Path) -> dict[str, str]:
        """What became of a file; ``seconds`` is how long it took."""
        process = self.process or self._start()
        assert process.stdin is not None
        start = time.monotonic()
        self._number += 1
        with suppress(BrokenPipeError):  # it has died since: its answer is that
            process.stdin.write(json.dumps([self._number, name, str(path)]).encode() + b"\n")
        found = self._answer(SECONDS)
        self.seconds = time.monotonic() - start
        if found["outcome"] in ("crash", "over time"):
            self.close()
        return found

    def _answer(self, seconds: float) -> dict[str, str]:
        """The answer to the last question; what comes before it was of an earlier one."""
        process = self.process
        assert process is not None
        assert process.stdout is not None
        end = time.monotonic() + seconds
        while select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            more = process.stdout.read(2**16)
            if not more:
                told = (self._folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
                return {"outcome": "crash", "what": f"status {_status(process)}: {' | '.join(told[:6])}"}
            *lines, self._left = (self._left + more).split(b"\n")
            for found in map(json.loads, lines):
                if found.pop("number") == self._number:
                    return found
        return {"outcome": "over time", "what": f"more than {seconds:.0f} s"}

    def close(self) -> None:
        """End the process."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            pipe.close()
        self.process = None


def _status(process: subprocess.Popen[bytes]) -> int:
    """The status of a process that has closed its output, and is to end."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(5)
    process.kill()
    return process.wait()


class Result(NamedTuple):
    """How many inputs of each format had which outcome, the longest reading in seconds, and the failures' files.

    Attributes:
        counts: Outcomes by format.
        slowest: Seconds by format.
        failures: The file of each by what was found.
        hostile: Number of inputs that were hostile; the others were mutations.
    """

    counts: dict[str, Counter[str]]
    slowest: dict[str, float]
    failures: dict[str, Path]
    hostile: int = 0


def fuzz(names: list[str], *, mutations: int, hostile: int, seconds: float, seed: int, keep: Path) -> Result:
    """Read hostile inputs, then mutations, until there are enough or the time is over; half of it is for either."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    slowest = dict.fromkeys(names, 0.0)
    failures: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        canary = folder / "canary"
        child = Child(folder)

        def read(inputs: Iterator[tuple[str, bytes]], seconds: float) -> int:
            done, end = 0, time.monotonic() + seconds
            for name, content in inputs:
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
                done += 1
                if time.monotonic() > end:
                    break
            return done

        start = time.monotonic()
        try:
            attack = _hostile(names, random.Random(seed), folder, canary)
            read_hostile = read(islice(attack, hostile), seconds / 2 if mutations else seconds)
            read(islice(_mutations(names, random.Random(seed), folder), mutations), seconds - time.monotonic() + start)
        finally:
            child.close()
    return Result(counts, slowest, failures, read_hostile)


def _hostile(names: list[str], random_: random.Random, folder: Path, canary: Path) -> Iterator[tuple[str, bytes]]:
    """Hostile files, then hostile names and servers without end, as format and content."""
    hostile_files.plant(folder, canary)
    yield from ((name, content) for name, content in hostile_files.files(folder, canary) if name in names)
    recipes = {name: recipe for name, recipe in RECIPES.items() if name in names}
    while recipes:
        for name, recipe in recipes.items():
            yield name, recipe(random_)


def _mutations(names: list[str], random_: random.Random, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Mutations without end, as format and content."""
    known: dict[str, Format] = {name: formats()[name] for name in names if name not in RECIPES}
    samples = {name: each.samples(folder) for name, each in known.items()}
    while known:
        (name,) = random_.choices(list(known), [each.share for each in known.values()])
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
    parser.add_argument("--mutations", type=int, default=10**9, help="how many at most (default: no limit)")
    parser.add_argument("--hostile", type=int, default=1000, help="how many hostile inputs at most (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other mutations (default: 0)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that failed")
    parser.add_argument("--write", action="store_true", help="write docs/results/fuzz.md")
    options = parser.parse_args(words)
    if unknown := set(options.format) - set(known):
        parser.error(f"no such format: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    start = time.monotonic()
    result = fuzz(
        options.format or known,
        mutations=options.mutations,
        hostile=options.hostile,
        seconds=options.seconds,
        seed=options.seed,
        keep=options.keep,
    )
    lines = table(result)
    print("\n".join(lines))
    for what, kept in result.failures.items():
        print(f"{what}; kept as {kept}")
    if options.write:
        command = f"--seconds {options.seconds:.0f} --hostile {options.hostile} --mutations {options.mutations}"
        mutations = sum(map(Counter.total, result.counts.values())) - result.hostile
        text = (
            "# Damaged and hostile files\n\n"
            f"`python -m tests.fuzz {command} --seed {options.seed} --write`\n\n"
            f"Read in {time.monotonic() - start:.0f} s: {result.hostile:,} hostile inputs of {options.hostile:,} that "
            f"were asked for, and {mutations:,} mutations of {options.mutations:,}.\n\n"
            "Names: folders whose files are called like options, addresses, commands, or are no files. Downloads: from "
            "servers that send anything else. Of `.mat` there are few, as each is read in a process of its own.\n\n"
            "Refused: with an error of this package. Accepted: what is damaged is not what is read, or still makes "
            f"sense. Untyped: any other error. Over time: more than {SECONDS:.0f} s. Executed: code in or beside the "
            "file was run.\n\n"
        )
        (ROOT / "docs" / "results" / "fuzz.md").write_text(text + "\n".join(lines) + "\n")
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main())
