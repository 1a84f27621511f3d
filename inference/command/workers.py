"""Processes that segment: started, sent orders, heard in one place, and ended if they hang.

Nothing waits for any single worker. Only the standard library is imported, so that the command takes 10 MB and no time
beside them.
"""

from __future__ import annotations

import json
import selectors
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from .. import machine
from ..errors import VisceraError
from ..options import Options
from . import processes
from .processes import KILL, PIECE, Process

Message = dict[str, Any]
# select knows no files with numbers above 1,023, epoll takes a file of its own, and Windows has select alone.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
POLL = 0.2  # s between two looks at whether the run is to stop
# How a worker ends that had too little memory: the kernel kills it, and a library that cannot go on aborts or exits.
MEMORY_SIGNALS = (KILL, signal.SIGABRT)


@dataclass(frozen=True)
class Lost:
    """A worker is gone.

    code     its exit code, or the negative number of the signal that ended it; None if unknown
    peak_mb  of its memory; 0 if unknown
    silent   s without a word from it after which it was ended, None if it ended on its own
    address  of a worker on a cluster, about whose end nothing more is known; None for a process of this machine
    """

    code: int | None
    peak_mb: float
    silent: float | None = None
    address: str | None = None

    @property
    def memory(self) -> bool:
        """Whether it may have had too little of it: killed, or a library gave up."""
        if self.silent is not None or self.code is None:
            return False
        return self.code >= 0 or -self.code in MEMORY_SIGNALS

    def __str__(self) -> str:
        if self.silent is not None:
            return f"made no progress for {self.silent:g} s and was ended"
        if self.address:
            return f"was lost at {self.address}: out of memory, hung, killed, or its machine is gone"
        if self.code is None:
            return "ended for an unknown reason"
        peak = f" after {self.peak_mb:.0f} MB of memory" if self.peak_mb else ""
        if self.code >= 0:
            return f"ended with code {self.code}{peak}: a library gave up, perhaps out of memory"
        hint = ": out of memory, or killed by hand" if self.memory else ""
        return f"was ended by {signal.Signals(-self.code).name}{peak}{hint}"


ANSWERS = {"ready", "fatal", "needs", "record"}  # what a worker says last before it waits for an order


@dataclass
class _Worker:
    """A process, what it said that is no whole line yet, and how long it may still be silent. `busy`: it owes an
    answer."""

    process: Process
    left: float
    unread: bytes = b""
    busy: bool = True


class Workers:
    """Processes that segment, by number; no number is used twice.

    options  with which they load networks
    timeout  seconds without a word from a worker that owes one after which it counts as hung
    check    called several times a second while they work; may raise
    """

    def __init__(self, options: Options, timeout: float, check: Callable[[], None]) -> None:
        self.options, self.timeout, self.check = options, timeout, check
        self._workers: dict[int, _Worker] = {}
        self._started = 0

    @property
    def numbers(self) -> list[int]:
        """Of those that are alive, as far as is known."""
        return list(self._workers)

    def start(self) -> int:
        """Start a worker; what it says first is "ready" or "fatal". Raises VisceraError."""
        try:
            process = processes.start(self.options, [worker.process for worker in self._workers.values()])
        except OSError as failed:
            raise VisceraError(f"the worker cannot be started: {failed.strerror}") from failed
        self._started += 1
        self._workers[self._started] = _Worker(process, self.timeout)
        return self._started

    def send(self, number: int, order: Message) -> None:
        """Send an order, as worker.py has them."""
        worker = self._workers[number]
        worker.busy, worker.left = True, self.timeout
        with suppress(OSError):  # it is gone, and `receive` says how
            line = memoryview((json.dumps(order) + "\n").encode("ascii"))
            while line:  # a pipe may take a part of it
                line = line[worker.process.orders.write(line) :]

    def receive(self, patience: float = POLL) -> tuple[int, Message | Lost] | None:
        """What the next worker says that has something to say, or how it was lost; None if none does for so many
        seconds."""
        self.check()
        for number, worker in self._workers.items():
            if b"\n" in worker.unread:
                line, worker.unread = worker.unread.split(b"\n", 1)
                message: Message = json.loads(line)
                worker.busy = not message.keys() & ANSWERS
                if message.get("spent"):
                    self.end(number)  # another one is started where there is more to do
                return number, message
        if not self._workers:  # Windows has no select of nothing
            return None
        wait = min(patience, *(worker.left for worker in self._workers.values()))
        start = perf_counter()
        with Selector() as ready:
            for worker in self._workers.values():
                ready.register(worker.process.answers, selectors.EVENT_READ)
            readable = [key.fileobj for key, _ in ready.select(wait)]
        # No more than the wait: a run may have been suspended as a whole.
        waited = min(perf_counter() - start, wait)
        for number, worker in self._workers.items():
            if worker.process.answers in readable:
                piece = worker.process.answers.read(PIECE)
                if not piece:
                    return number, self._end(number)
                worker.unread, worker.left = worker.unread + piece, self.timeout
            elif worker.busy:
                worker.left -= waited
                if worker.left <= 0:
                    worker.process.kill()
                    return number, self._end(number, self.timeout)
        return None

    def private_memory(self, number: int) -> int:
        """Bytes that a worker holds and shares with no other."""
        return machine.private_memory(self._workers[number].process.pid)

    def end(self, number: int) -> None:
        """End a worker at once. What it was writing are hidden parts, which are the caller's to remove."""
        self._workers[number].process.kill()
        self._end(number)

    def stop(self) -> None:
        """End all of them."""
        for number in self.numbers:
            self.end(number)

    def _end(self, number: int, silent: float | None = None) -> Lost:
        """Collect an ended worker; how it ended."""
        return Lost(*self._workers.pop(number).process.collect(), silent)
