"""Keeps workers alive: a scan that kills one or hangs it costs that scan, and no other.

Nothing waits for one worker: orders are sent, and whatever any of them says is received in one place. It imports
nothing but the standard library, so that it takes 10 MB and no time beside them.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import VisceraError
from ..formats.cases import Case
from ..options import Options, Way
from . import processes
from .processes import KILL, PIECE, Process

Message = dict[str, Any]
POLL = 0.2  # s between two looks at whether the run is to stop
# How a worker ends that had too little memory: the kernel kills it, and a library that cannot go on aborts or exits.
MEMORY_SIGNALS = (KILL, signal.SIGABRT)


@dataclass(frozen=True)
class Lost:
    """A worker is gone.

    code     its exit code, or the negative number of the signal that ended it; None if nobody knows
    peak_mb  of its memory; 0 if nobody knows
    silent   s without a word from it after which it was ended, None if it ended by itself
    """

    code: int | None
    peak_mb: float
    silent: float | None = None

    @property
    def memory(self) -> bool:
        """Whether it may have had too little of it: killed, or a library gave up."""
        if self.silent is not None or self.code is None:
            return False
        return self.code >= 0 or -self.code in MEMORY_SIGNALS

    def __str__(self) -> str:
        if self.silent is not None:
            return f"made no progress for {self.silent:g} s and was ended"
        if self.code is None:
            return "ended, nobody knows how"
        peak = f" after {self.peak_mb:.0f} MB of memory" if self.peak_mb else ""
        if self.code >= 0:
            return f"ended with code {self.code}{peak}: a library gave up, as where memory runs out"
        hint = ": out of memory, or killed by hand" if self.memory else ""
        return f"was ended by {signal.Signals(-self.code).name}{peak}{hint}"


@dataclass
class _Worker:
    """A process, what it said that is no whole line yet, and how long it may still be silent. `busy`: it owes an
    answer."""

    process: Process
    left: float
    unread: bytes = b""
    busy: bool = True


class Workers:
    """Processes that segment, each started when it is needed and again after it was lost.

    options  with which they load networks
    count    of them at most
    timeout  seconds without a word from a worker that owes one after which it counts as hung
    check    called several times a second while they work; may raise
    """

    def __init__(self, options: Options, count: int, timeout: float, check: Callable[[], None]) -> None:
        self.options, self.count, self.timeout, self.check = options, count, timeout, check
        self._workers: dict[int, _Worker] = {}

    def free(self) -> int | None:
        """The number of a worker that owes nothing, whether it was started or not; None if all are busy."""
        numbers = [number for number in range(self.count) if not self.owes(number)]
        return min(numbers, key=lambda number: (number not in self._workers, number), default=None)

    def is_there(self, number: int) -> bool:
        return number in self._workers

    def owes(self, number: int) -> bool:
        """Whether a worker has been started or sent an order, and has not answered yet."""
        return number in self._workers and self._workers[number].busy

    def start(self, number: int) -> None:
        """Start a worker; what it says first is "ready" or "fatal". Raises VisceraError."""
        try:
            process = processes.start(self.options, [worker.process for worker in self._workers.values()])
        except OSError as failed:
            raise VisceraError(f"the worker cannot be started: {failed.strerror}") from failed
        self._workers[number] = _Worker(process, self.timeout)

    def send(self, number: int, case: Case, way: Way | None) -> None:
        """Have a case segmented in a way, or with none an empty label map written; "record" is the answer."""
        worker = self._workers[number]
        files, outputs = ([os.fspath(path) for path in paths] for paths in (case.files, case.outputs))
        fields: Message = {"name": case.name, "files": files, "outputs": outputs}
        if case.volume:
            fields["pictures"] = [(os.fspath(file), frame) for file, frame in case.volume.pictures]
        worker.busy, worker.left = True, self.timeout
        with suppress(OSError):  # it is gone, and `receive` says how
            order = {"case": fields, "way": asdict(way) if way else None}
            line = memoryview((json.dumps(order) + "\n").encode("ascii"))
            while line:  # a pipe may take a part of it
                line = line[worker.process.orders.write(line) :]

    def receive(self) -> tuple[int, Message | Lost]:
        """What the next worker says that has something to say, or how it was lost. One at least has to be busy."""
        while True:
            self.check()
            busy = {number: worker for number, worker in self._workers.items() if worker.busy}
            for number, worker in busy.items():
                if b"\n" in worker.unread:
                    line, worker.unread = worker.unread.split(b"\n", 1)
                    message: Message = json.loads(line)
                    worker.busy = not message.keys() & {"ready", "fatal", "record"}
                    return number, message
            # The waits are counted, not the time: a run may have been suspended as a whole.
            wait = min(POLL, *(worker.left for worker in busy.values()))
            readable = select.select([worker.process.answers for worker in busy.values()], [], [], wait)[0]
            for number, worker in busy.items():
                if worker.process.answers in readable:
                    piece = worker.process.answers.read(PIECE)
                    if not piece:
                        return number, self._end(number)
                    worker.unread, worker.left = worker.unread + piece, self.timeout
                elif worker.left - wait <= 0:
                    worker.process.kill()
                    return number, self._end(number, self.timeout)
                else:
                    worker.left -= wait

    def stop(self) -> None:
        """End all workers at once. What they were writing are hidden parts, which are the caller's to remove."""
        for number in list(self._workers):
            self._workers[number].process.kill()
            self._end(number)

    def _end(self, number: int, silent: float | None = None) -> Lost:
        """Collect an ended worker; how it ended."""
        return Lost(*self._workers.pop(number).process.collect(), silent)
