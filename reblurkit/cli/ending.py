"""How commands end that are told to: by Ctrl-C with status 130, by SIGTERM, as schedulers send it, with 143."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_TWICE = 1.0  # second: `timeout` sends to the process and to its group
_WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Told:
    """What a command was told while it ran. An exception may get lost on its way; this does not.

    Attributes:
        signal: The first signal, None before.
        at_once: Whether SIGTERM ends the command where it is; without, it is only noted.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.at_once = True
        self._when = 0.0

    @property
    def status(self) -> int:
        """The exit status, as a shell gives it to what a signal has ended."""
        return 128 + (self.signal or signal.SIGINT)

    @property
    def word(self) -> str:
        """What has happened, for the user."""
        return _WORDS[self.signal or signal.SIGINT]

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C."""
        self.signal = self.signal or signal.SIGINT
        raise KeyboardInterrupt

    def terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM: as an exception, so that nothing is left half done."""
        again = self.signal == signal.SIGTERM and time.monotonic() - self._when < _TWICE
        self.signal, self._when = self.signal or signal.SIGTERM, time.monotonic()
        if self.at_once and not again:
            raise SystemExit(self.status)


_now: list[Told] = []


@contextmanager
def listening() -> Iterator[Told]:
    """Hear signals while the block runs; those that the caller ignores or handles are left to it."""
    told = Told()
    handlers = {signal.SIGINT: told.interrupt, signal.SIGTERM: told.terminate}
    untouched = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in handlers}
    is_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    ours = [number for number in handlers if is_main and before[number] == untouched[number]]
    for number in ours:
        signal.signal(number, handlers[number])
    _now.append(told)
    try:
        yield told
    finally:
        _now.remove(told)
        for number in ours:
            signal.signal(number, before[number])


def leave_sigterm_to_lightning() -> None:
    """Only note SIGTERM: under SLURM, a training that is queued anew ends where Lightning lets it."""
    for told in _now:
        told.at_once = False


@contextmanager
def interrupts_of_lightning() -> Iterator[None]:
    """Let Ctrl-C be what it was: a Trainer that is interrupted ends the process with another status."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
