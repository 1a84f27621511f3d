"""Keeps one worker alive: a scan that kills it or hangs it costs that scan, and no other.

It imports nothing but the standard library, so that it takes 10 MB and no time beside the worker.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from inference.cases import Case
from inference.errors import VisceraError
from inference.worker import serve

Message = dict[str, Any]


class LostError(Exception):
    """The worker is gone before its answer; the text says how. `killed`: by SIGKILL, as where memory is too small."""

    def __init__(self, text: str, killed: bool = False) -> None:
        super().__init__(text)
        self.killed = killed


class Supervisor:
    """One worker at a time, started when it is needed and again after it was lost.

    options   of the command line, for the worker
    timeout   seconds without a word from the worker after which it counts as hung
    """

    def __init__(self, options: dict[str, Any], timeout: float) -> None:
        self.options = options
        self.timeout = timeout
        self.pid: int | None = None
        self._orders = self._answers = -1
        self._unread = b""

    def ready(self) -> Message:
        """Start the worker and return what it loaded. Raises VisceraError where it cannot load it."""
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._unread = b""
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
        try:
            message = self._next()
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

    def order(self, what: str, case: Case, on_message: Callable[[Message], None]) -> Message:
        """Send an order and wait for its record; `on_message` gets every other answer. Raises LostError."""
        assert self.pid is not None
        fields = {"name": case.name, "scan": os.fspath(case.scan), "labels": os.fspath(case.labels)}
        try:
            os.write(self._orders, (json.dumps({what: fields}) + "\n").encode("ascii"))
        except BrokenPipeError:
            raise self._lost() from None
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
            if not select.select([self._answers], [], [], self.timeout)[0]:
                self.stop()
                raise LostError(f"made no progress for {self.timeout:g} s and was ended")
            piece = os.read(self._answers, 1 << 16)
            if not piece:
                raise self._lost()
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        message: Message = json.loads(line)
        return message

    def _lost(self) -> LostError:
        ending = self._end()
        return LostError(ending, killed="SIGKILL" in ending)

    def _end(self) -> str:
        """Collect the ended worker; how it ended, in words."""
        assert self.pid is not None
        _, status, usage = os.wait4(self.pid, 0)
        self.pid = None
        os.close(self._orders)
        os.close(self._answers)
        peak = f"after {usage.ru_maxrss * 1024 / 1e6:.0f} MB of memory"
        if not os.WIFSIGNALED(status):
            return f"ended with code {os.waitstatus_to_exitcode(status)} {peak}"
        name = signal.Signals(os.WTERMSIG(status)).name
        hint = ": there was too little memory, or somebody ended it" if name == "SIGKILL" else ""
        return f"was ended by {name} {peak}{hint}"
