"""How commands end that are told to.

By Ctrl-C with status 130, by SIGTERM, as schedulers send it, with 143, by SIGHUP, when a terminal or a connection is
closed, with 129.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_TWICE = 1.0  # second: `timeout` sends to the process and to its group
_HANGUP: int | None = getattr(signal, "SIGHUP", None)  # not on Windows
_WORDS: dict[int | None, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", _HANGUP: "hung up"}


class Told:
    """What a command was told while it ran. An exception may get lost on its way; this does not.

    Attributes:
        signal: The first signal, None before.
        at_once: Whether SIGTERM or SIGHUP ends the command where it is; without, it is only noted.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.at_once = True
        self._when = 0.0
        self._raised: BaseException | None = None
        self._lost = False
        self._over = threading.Event()
        self._hook = sys.unraisablehook

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
        self._raise(KeyboardInterrupt())

    def terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM, SIGHUP: as an exception, so that nothing is left half done."""
        again = self.signal == number and time.monotonic() - self._when < _TWICE and not self._lost
        self.signal, self._when = self.signal or number, time.monotonic()
        if self.at_once and not again:
            self._raise(SystemExit(self.status))

    def over(self) -> None:
        """The command has ended."""
        self._over.set()

    def untold(self, lost: sys.UnraisableHookArgs) -> None:
        """What Python does with an exception in a finalizer: ours is sent again, and nothing to tell."""
        if lost.exc_value is not self._raised:
            self._hook(lost)

    def _raise(self, error: BaseException) -> None:
        first = self._raised is None
        self._raised, self._lost = error, False
        if first:
            threading.Thread(target=self._insist, daemon=True).start()
        raise error

    def _insist(self) -> None:
        """Send the signal again, as often as the exception is no longer on its way: some library has caught it."""
        main = threading.main_thread().ident
        while not self._over.wait(_TWICE):
            if not _is_handled(self._raised, main):
                self._lost = True
                if hasattr(signal, "pthread_kill"):
                    signal.pthread_kill(main or 0, self.signal or 0)
                else:
                    signal.raise_signal(self.signal or 0)


def _is_handled(error: BaseException | None, thread: int | None) -> bool:
    """Whether a thread cleans up after an exception, or after another one that came of it."""
    found: Any = sys._current_exceptions().get(thread or 0)
    handled = found[1] if isinstance(found, tuple) else found  # before Python 3.12 with its type and traceback
    while handled is not None and handled is not error:
        handled = handled.__context__
    return handled is not None


_now: list[Told] = []


@contextmanager
def listening() -> Iterator[Told]:
    """Hear signals while the block runs; those that the caller ignores or handles are left to it."""
    told = Told()
    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGINT: told.interrupt,
        signal.SIGTERM: told.terminate,
    }
    untouched: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if _HANGUP is not None:
        handlers[_HANGUP], untouched[_HANGUP] = told.terminate, signal.SIG_DFL
    before = {number: signal.getsignal(number) for number in handlers}
    is_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    ours = [number for number in handlers if is_main and before[number] == untouched[number]]
    for number in ours:
        signal.signal(number, handlers[number])
    _now.append(told)
    sys.unraisablehook = told.untold
    try:
        yield told
    finally:
        told.over()
        _now.remove(told)
        sys.unraisablehook = told._hook
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
