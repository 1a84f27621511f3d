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
from .stopping import held
from .worker import serve

Message = dict[str, Any]
POLL = 0.2  # s between two looks at whether the run is to stop
# How a worker ends that had too little memory: the kernel kills it, and a library that cannot go on aborts or exits.
MEMORY_SIGNALS = (signal.SIGKILL, signal.SIGABRT)


@dataclass(frozen=True)
class Lost:
    """A worker is gone.

    status   as os.wait4 gives it; None if nobody knows
    peak_mb  of its memory
    silent   s without a word from it after which it was ended, None if it ended by itself
    """

    status: int | None
    peak_mb: float
    silent: float | None = None

    @property
    def memory(self) -> bool:
        """Whether it may have had too little of it: killed, or a library gave up."""
        if self.silent is not None or self.status is None:
            return False
        return not os.WIFSIGNALED(self.status) or os.WTERMSIG(self.status) in MEMORY_SIGNALS

    def __str__(self) -> str:
        if self.silent is not None:
            return f"made no progress for {self.silent:g} s and was ended"
        if self.status is None:
            return "ended, nobody knows how"
        peak = f"after {self.peak_mb:.0f} MB of memory"
        if not os.WIFSIGNALED(self.status):
            code = os.waitstatus_to_exitcode(self.status)
            return f"ended with code {code} {peak}: a library gave up, as where memory runs out"
        hint = ": out of memory, or killed by hand" if self.memory else ""
        return f"was ended by {signal.Signals(os.WTERMSIG(self.status)).name} {peak}{hint}"


@dataclass
class _Worker:
    """A process: its number, the pipes to it and from it, what it said that is no whole line yet, and how long it may
    still be silent. `busy`: it owes an answer."""

    pid: int
    orders: int
    answers: int
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
        """Fork a worker; what it says first is "ready" or "fatal". Raises VisceraError."""
        try:
            orders, to = os.pipe()
            back, answers = os.pipe()
            with held():
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        for descriptor in (to, back, *self._descriptors()):
                            os.close(descriptor)
                        code = serve(orders, answers, self.options)
                    finally:
                        os._exit(code)  # nothing of the command's may run twice
                self._workers[number] = _Worker(pid, to, back, self.timeout)
        except OSError as failed:
            raise VisceraError(f"the worker cannot be started: {failed.strerror}") from failed
        os.close(orders)
        os.close(answers)

    def _descriptors(self) -> list[int]:
        return [descriptor for worker in self._workers.values() for descriptor in (worker.orders, worker.answers)]

    def send(self, number: int, case: Case, way: Way | None) -> None:
        """Have a case segmented in a way, or with none an empty label map written; "record" is the answer."""
        worker = self._workers[number]
        outputs = [os.fspath(path) for path in case.outputs]
        fields = {"name": case.name, "scan": os.fspath(case.scan), "outputs": outputs}
        worker.busy, worker.left = True, self.timeout
        with suppress(BrokenPipeError):  # it is gone, and `receive` says how
            order = {"case": fields, "way": asdict(way) if way else None}
            os.write(worker.orders, (json.dumps(order) + "\n").encode("ascii"))

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
            readable = select.select([worker.answers for worker in busy.values()], [], [], wait)[0]
            for number, worker in busy.items():
                if worker.answers in readable:
                    piece = os.read(worker.answers, 1 << 16)
                    if not piece:
                        return number, self._end(number)
                    worker.unread, worker.left = worker.unread + piece, self.timeout
                elif worker.left - wait <= 0:
                    os.kill(worker.pid, signal.SIGKILL)
                    return number, self._end(number, self.timeout)
                else:
                    worker.left -= wait

    def stop(self) -> None:
        """End all workers at once. What they were writing are hidden parts, which are the caller's to remove."""
        for number in list(self._workers):
            os.kill(self._workers[number].pid, signal.SIGKILL)
            self._end(number)

    def _end(self, number: int, silent: float | None = None) -> Lost:
        """Collect an ended worker; how it ended."""
        worker = self._workers[number]
        status, peak = None, 0.0
        with held():
            try:
                _, status, usage = os.wait4(worker.pid, 0)
                peak = usage.ru_maxrss * 1024 / 1e6
            except ChildProcessError:  # started with SIGCHLD ignored: the kernel has collected it
                pass
            del self._workers[number]
        os.close(worker.orders)
        os.close(worker.answers)
        return Lost(status, peak, silent)
