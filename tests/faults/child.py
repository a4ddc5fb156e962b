"""The command line in a process of its own, which is killed, or told to end, at random or at a chosen moment.

Children are forked from a process that has imported everything: sixty runs would otherwise import for ten minutes.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import reblurkit.cli.adapt_video
import reblurkit.cli.deblur
import reblurkit.cli.trainer  # noqa: F401  # heavy, and needed by every child
from reblurkit.cli import main
from reblurkit.core.file_locks import MARK
from reblurkit.plugins.short_names import named_classes

named_classes()
LONGEST = 180.0  # seconds; what takes longer hangs


class Plan(NamedTuple):
    """When a run ends before its time: a signal after seconds, or SIGKILL around the n-th file that it writes."""

    number: int = signal.SIGKILL
    after: float | None = None
    moment: str | None = None  # of MOMENTS
    file: int = 1


class Ended(NamedTuple):
    """How a run ended: the exit status as a shell gives it, whether it was made to end, and how long it took."""

    status: int
    was_told: bool
    seconds: float
    said: str

    @property
    def hung(self) -> bool:
        return self.seconds > LONGEST


def _midst(replace: Callable[..., Path], partial: Path, target: Path) -> None:
    os.truncate(partial, partial.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def _before(replace: Callable[..., Path], partial: Path, target: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(replace: Callable[..., Path], partial: Path, target: Path) -> None:
    replace(partial, target)
    os.kill(os.getpid(), signal.SIGKILL)


MOMENTS = {"in the midst": _midst, "before it has its name": _before, "after it has its name": _after}


def run(words: list[str], folder: Path, temporary: Path, plan: Plan | None = None) -> Ended:
    """Run ``reblurkit`` with these words in a folder, to its end or to the plan's."""
    log = folder.parent / f"{folder.name}.log"
    log.touch()  # a run may be killed before it has said anything
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _live(words, folder, temporary, log, plan)
    told, status = False, None
    while status is None and time.monotonic() - start < LONGEST:
        passed = time.monotonic() - start
        if plan is not None and plan.after is not None and not told and passed > plan.after:
            told = True
            os.kill(pid, plan.number)
        done, code = os.waitpid(pid, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
        time.sleep(0.005)
    seconds = time.monotonic() - start
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        seconds, status = LONGEST + 1, -signal.SIGKILL
    told = told or status == -signal.SIGKILL
    return Ended(128 - status if status < 0 else status, told, seconds, log.read_text(errors="replace"))


def _live(words: list[str], folder: Path, temporary: Path, log: Path, plan: Plan | None) -> None:
    status = 99
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ["TMPDIR"] = str(temporary)
        tempfile.tempdir = None
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        if plan is not None and plan.moment is not None:
            _arm(MOMENTS[plan.moment], plan.file)
        status = main(words)
    except KeyboardInterrupt:  # before the command listens
        status = 130
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        os._exit(status)


def _arm(kill: Callable[..., None], file: int) -> None:
    replace, count = Path.replace, 0

    def counted(partial: Path, target: Path) -> Path:
        nonlocal count
        if partial.name.startswith(MARK):
            count += 1
            if count == file:
                kill(replace, partial, target)
        return replace(partial, target)

    Path.replace = counted  # type: ignore[method-assign, assignment]
