"""The signals that end a run: noted as they come, heeded where nothing is left half done."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

# Windows has neither SIGHUP nor SIGALRM.
SIGNALS: list[signal.Signals] = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
ALARM: signal.Signals | None = getattr(signal, "SIGALRM", None)
PATIENCE = 1.0  # s between a signal and the end of whatever does not come to a `check` by itself


class Stopped(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no handler of errors swallows it."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.name = number.name
        self.exit_code = 128 + number  # as a shell reports it: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP


class Stopping(AbstractContextManager["Stopping"]):
    """Inside the context the first of SIGNALS is noted and makes `check` raise Stopped, once; later ones are ignored.

    A handler that raised at once would leave a forked worker or a part of a file behind, and raise again at a second
    Ctrl-C in the middle of cleaning up. Only where no `check` is reached for PATIENCE, in a write to a pipe that nobody
    reads or on a slow network file system, is Stopped raised in place.

    Handlers are put back at the end. Those that ignore a signal (nohup) stay, and outside the main thread none is set.
    """

    def __init__(self) -> None:
        self._noted: signal.Signals | None = None
        self._over = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        taken = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        if ALARM is not None and signal.getsignal(ALARM) == signal.SIG_DFL:
            taken.append(ALARM)
        with suppress(ValueError):  # not the main thread
            for number in taken:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._noted is not None:
            self._set_timer(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Stopped if a signal has come, unless it was raised before or the run is over."""
        if self._noted is not None and not self._over:
            self._over = True
            raise Stopped(self._noted)

    def over(self) -> None:
        """From here on the run ends anyway, and no signal changes how."""
        self._over = True

    def _note(self, number: int, _: object) -> None:
        if self._noted is None:
            self._noted = signal.Signals(number)
            self._set_timer(PATIENCE)
        elif number == ALARM:
            self.check()

    def _set_timer(self, seconds: float) -> None:
        if sys.platform != "win32" and ALARM in self._before:  # else somebody else's program uses it
            signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def held() -> Iterator[None]:
    """Hold the signals back; a process started inside never sees them, and is ended by the one that started it."""
    if sys.platform == "win32" or ALARM is None:  # nothing can be held back there: the process itself ignores them
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, ALARM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
