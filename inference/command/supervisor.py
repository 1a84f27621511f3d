"""Keeps one worker alive: a scan that kills it or hangs it costs that scan, and no other.

It imports nothing but the standard library, so that it takes 10 MB and no time beside the worker.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..errors import VisceraError
from ..formats.cases import Case
from ..options import Way
from .stopping import held
from .worker import serve

Message = dict[str, Any]
POLL = 0.2  # s between two looks at whether the run is to stop
# How a worker ends that had too little memory: the kernel kills it, and a library that cannot go on aborts or exits.
MEMORY_SIGNALS = (signal.SIGKILL, signal.SIGABRT)


class LostError(Exception):
    """The worker is gone before its answer; the text says how. `memory`: it may have had too little of it."""

    def __init__(self, text: str, memory: bool = False) -> None:
        super().__init__(text)
        self.memory = memory


class Supervisor:
    """One worker at a time, started when it is needed and again after it was lost.

    options   of the command line, for the worker
    timeout   seconds without a word from the worker after which it counts as hung
    check     called several times a second while the worker works; may raise
    """

    def __init__(self, options: dict[str, Any], timeout: float, check: Callable[[], None] = lambda: None) -> None:
        self.options = options
        self.timeout = timeout
        self.check = check
        self.pid: int | None = None
        self._orders = self._answers = -1
        self._unread = b""

    def ready(self) -> Message:
        """Start the worker and return what it loaded. Raises VisceraError where it cannot load it."""
        try:
            self._start()
            message = self._next()
        except OSError as failed:
            raise VisceraError(f"the worker cannot be started: {failed.strerror}") from failed
        except LostError as lost:
            raise VisceraError(f"the networks could not be loaded: the worker {lost}") from lost
        if "fatal" in message:
            self.stop()
            code, text = message["fatal"]
            error = VisceraError(text)
            error.exit_code = code
            raise error
        found: Message = message["ready"]
        return found

    def _start(self) -> None:
        """Fork the worker. Raises OSError."""
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._unread = b""
        with held():
            self.pid = os.fork()
            if self.pid == 0:
                code = 1
                try:
                    os.close(self._orders)
                    os.close(self._answers)
                    code = serve(orders, answers, self.options)
                finally:
                    os._exit(code)  # nothing of the supervisor's may run twice
        os.close(orders)
        os.close(answers)

    def order(self, case: Case, way: Way | None, on_message: Callable[[Message], None]) -> Message:
        """Have a case segmented in a way, or with none an empty label map written, and wait for its record.

        `on_message` gets every other answer. Raises LostError.
        """
        assert self.pid is not None
        fields = {"name": case.name, "scan": os.fspath(case.scan), "labels": os.fspath(case.labels)}
        order = {"case": fields, "way": asdict(way) if way else None}
        try:
            os.write(self._orders, (json.dumps(order) + "\n").encode("ascii"))
        except BrokenPipeError:
            raise self._end() from None
        while "record" not in (message := self._next()):
            on_message(message)
        record: Message = message["record"]
        return record

    def stop(self) -> None:
        """End the worker at once. What it was writing is a hidden part, which is the caller's to remove."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._end()

    def _next(self) -> Message:
        """The worker's next message. Raises LostError where it ends or says nothing for too long."""
        while b"\n" not in self._unread:
            self._wait()
            piece = os.read(self._answers, 1 << 16)
            if not piece:
                raise self._end()
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        message: Message = json.loads(line)
        return message

    def _wait(self) -> None:
        """Wait until the worker says something. Raises LostError where it does not in time."""
        left = self.timeout  # the waits are counted, not the time: a run may have been suspended as a whole
        while left > 0:
            self.check()
            if select.select([self._answers], [], [], min(POLL, left))[0]:
                return
            left -= POLL
        self.stop()
        raise LostError(f"made no progress for {self.timeout:g} s and was ended")

    def _end(self) -> LostError:
        """Collect the ended worker; how it ended."""
        assert self.pid is not None
        status, peak = None, ""
        with held():
            try:
                _, status, usage = os.wait4(self.pid, 0)
                peak = f"after {usage.ru_maxrss * 1024 / 1e6:.0f} MB of memory"
            except ChildProcessError:  # started with SIGCHLD ignored: the kernel has collected it
                pass
            self.pid = None
        os.close(self._orders)
        os.close(self._answers)
        if status is None:
            return LostError("ended, nobody knows how")
        if not os.WIFSIGNALED(status):
            code = os.waitstatus_to_exitcode(status)
            return LostError(f"ended with code {code} {peak}: a library gave up, as where memory runs out", memory=True)
        number = signal.Signals(os.WTERMSIG(status))
        memory = number in MEMORY_SIGNALS
        hint = ": there was too little memory, or somebody ended it" if memory else ""
        return LostError(f"was ended by {number.name} {peak}{hint}", memory)
