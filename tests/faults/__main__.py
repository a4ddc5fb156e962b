"""Kill runs over two file systems and fill disks, look through what is left, go on, and print what was found."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.child import MOMENTS, Ended, Plan, run
from tests.faults.stories import STORIES, Story, equal, files, orphans, torn

COUNTS = ("kills", "full disks", "torn", "orphans", "wrong exit status", "hung", "resumed", "resumed bit-equal")
EXPECTED = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: 137}
_HEAD = """\
# Killed runs and full disks

`python -m tests.faults --write`: runs are killed at random and while they write, what is left is looked through, and
they go on."""
RESULTS = Path(__file__).parents[2] / "docs" / "results" / "faults.md"


class Suite:
    """Counts of what was done and found, by story and place."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.counts: dict[str, Counter[str]] = {}
        self.findings: list[str] = []
        self._wanted: dict[str, tuple[Any, float, int, int]] = {}

    def wanted(self, name: str, place: Path) -> tuple[Any, float, int, int]:
        """What a run that nobody disturbs gives, how long it takes, how many files it writes, and of what size."""
        if name not in self._wanted:
            with folders(place) as (folder, temporary):
                story = STORIES[name]
                story.prepare(folder)
                before = {path: path.stat().st_size for path in files(folder)}
                ended = run(story.words, folder, temporary)
                assert ended.status == 0, ended.said
                new = [path.stat().st_size for path in files(folder) if path not in before]
                self._wanted[name] = story.result(folder), ended.seconds, len(new), sum(new)
        return self._wanted[name]

    def kill(self, name: str, place: Path, plan: Plan | None = None) -> None:
        """Kill a run once, look through what is left, go on, and compare."""
        story, count = STORIES[name], self.counts.setdefault(f"{name}, {place}", Counter())
        result, seconds, number, _ = self.wanted(name, place)
        plan = plan or self._plan(seconds, number)
        with folders(place) as (folder, temporary):
            story.prepare(folder)
            ended = run(story.words, folder, temporary, plan)
            if not ended.was_told:
                return  # it was faster
            count["kills"] += 1
            self._note(count, "torn", f"{name}, {plan}", torn(folder))
            if ended.status not in (EXPECTED[plan.number], 0):
                self._note(count, "wrong exit status", f"{name}, {plan}", [f"{ended.status}: {ended.said[-500:]}"])
            if plan.number != signal.SIGKILL:
                self._note(count, "orphans", f"{name}, {plan}", orphans(folder, temporary))
            self._hang(count, name, ended)
            again = run(story.again(folder), folder, temporary)
            self._hang(count, name, again)
            if again.status:
                self._note(
                    count, "wrong exit status", f"{name}, {plan}, again", [f"{again.status}: {again.said[-800:]}"]
                )
                return
            count["resumed"] += 1
            self._note(count, "orphans", f"{name}, {plan}, again", [*orphans(folder), *map(str, files(temporary))])
            if equal(story.result(folder), result):
                count["resumed bit-equal"] += 1
            else:
                self.findings.append(f"{name}, {plan}: the result is another one")

    def fill(self, name: str, place: Path) -> None:
        """Let a run come to the end of a disk: a memory disk of its own."""
        story, count = STORIES[name], self.counts.setdefault(f"{name}, full disk", Counter())
        _, _, _, size = self.wanted(name, place)
        with folders(place) as (folder, temporary), small_disk(folder, story, size, self.random.uniform(0.2, 0.8)):
            ended = run(story.words, folder, temporary)
            count["full disks"] += 1
            self._hang(count, name, ended)
            self._note(count, "torn", f"{name}, full disk", torn(folder))
            self._note(count, "orphans", f"{name}, full disk", [*orphans(folder), *map(str, files(temporary))])
            if ended.status not in (1, 2) or "No space left" not in ended.said:
                self._note(count, "wrong exit status", f"{name}, full disk", [f"{ended.status}: {ended.said[-800:]}"])

    def _plan(self, seconds: float, number: int) -> Plan:
        if self.random.random() < 0.5:
            moment = self.random.choice(list(MOMENTS))
            return Plan(moment=moment, file=self.random.randint(1, max(number, 1)))
        kind = self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        return Plan(kind, after=self.random.uniform(0.05, 1.0) * seconds)

    def _note(self, count: Counter[str], kind: str, what: str, found: list[str]) -> None:
        count[kind] += len(found)
        self.findings += [f"{what}: {kind}: {each}" for each in found]

    def _hang(self, count: Counter[str], name: str, ended: Ended) -> None:
        self._note(count, "hung", name, [ended.said[-500:]] if ended.hung else [])


@contextmanager
def folders(place: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to work in on one file system, and a temporary one, where that can be, on the other."""
    other = Path("/dev/shm") if place != Path("/dev/shm") and Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(prefix="reblurkit-faults-", dir=place) as root,
        tempfile.TemporaryDirectory(prefix="reblurkit-faults-", dir=other) as temporary,
    ):
        (Path(root) / "work").mkdir()
        yield Path(root) / "work", Path(temporary)


@contextmanager
def small_disk(folder: Path, story: Story, size: int, share: float) -> Iterator[None]:
    """Mount a memory disk on a folder that holds what a story reads, and a share of what it writes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        story.prepare(folder)
        used = shutil.disk_usage(folder).used
        limit = used + max(int(size * share), 8192)
        subprocess.run(["mount", "-o", f"remount,size={limit}", str(folder)], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this user may mount a memory disk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def table(suite: Suite, took: float, seed: int, filled: bool) -> str:
    """The counts for people."""
    rows = {name: count for name, count in suite.counts.items() if count["kills"] or count["full disks"]}
    rows["all"] = sum(rows.values(), Counter())
    lines = [f"| {' | '.join(['', *COUNTS])} |", f"|---|{'---:|' * len(COUNTS)}"]
    lines += [f"| {name} | {' | '.join(str(count[each]) for each in COUNTS)} |" for name, count in rows.items()]
    full = "" if filled else " No disk could be filled here: that takes the right to mount one."
    return "\n".join([*lines, "", f"Seed {seed}, {took:.0f} seconds.{full}", ""])


def main(words: list[str] | None = None) -> int:
    """Run the suite; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="when to begin nothing more (default: 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args(words)
    start, suite = time.monotonic(), Suite(options.seed)
    places = [Path(tempfile.gettempdir()), *([Path("/dev/shm")] if Path("/dev/shm").is_dir() else [])]
    fills = can_mount()
    number = 0
    while time.monotonic() - start < options.seconds:
        name = list(STORIES)[number % len(STORIES)]
        if fills and number % 20 >= 15:
            suite.fill(name, places[0])
        else:
            suite.kill(name, places[number // len(STORIES) % len(places)])
        number += 1
        print(f"\r{number} runs, {len(suite.findings)} findings", end="", file=sys.stderr, flush=True)
    text = table(suite, time.monotonic() - start, options.seed, fills)
    print(f"\n{text}\n" + "\n".join(suite.findings))
    if options.write:
        RESULTS.write_text(f"{_HEAD}\n\n{text}")
    return int(bool(suite.findings))


if __name__ == "__main__":
    sys.exit(main())
