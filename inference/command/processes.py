"""Starts and ends the processes that do the work: forks of this one where that is quick and safe, else programs.

A fork has all modules that it needs at once, which saves 0.1 s, but only Linux forks safely, and only a process without
other threads, which may hold a lock that nobody releases in the fork: a notebook that has computed has some.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from typing import IO, TYPE_CHECKING, Any

from ..errors import names_are_hidden
from ..machine import PEAK_UNIT, own_program
from ..options import Options
from .stopping import held
from .worker import serve

if TYPE_CHECKING:
    import socket
    import subprocess  # nosec B404

KILL: signal.Signals | None = getattr(signal, "SIGKILL", None)  # not on Windows
PIECE = 1 << 16


@dataclass
class Process:
    """A worker that runs; both files are unbuffered.

    orders   what it reads, in lines
    answers  what it says, in lines; select can wait for it
    program  None for a fork
    """

    pid: int
    orders: IO[bytes]
    answers: RawIOBase
    program: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        if KILL is None:
            assert self.program
            self.program.kill()
        else:
            with suppress(ProcessLookupError):  # started with SIGCHLD ignored: it is gone without a trace
                os.kill(self.pid, KILL)  # Popen's own would collect it as well

    def collect(self) -> tuple[int | None, float]:
        """Wait for its end: exit code, or the negative number of the signal that ended it, None if unknown; and the
        most memory that it had, MB, 0 if unknown."""
        code, peak = None, 0.0
        if hasattr(os, "wait4"):
            with held(), suppress(ChildProcessError):  # started with SIGCHLD ignored: the kernel has collected it
                _, status, usage = os.wait4(self.pid, 0)
                code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss * PEAK_UNIT / 1e6
        elif self.program:
            code = self.program.wait()
        if self.program:
            self.program.returncode = code or 0
        for file in (self.orders, self.answers):
            file.close()
        return code, peak


def start(options: Options, others: Iterable[Process]) -> Process:
    """A worker that loads its networks now. Raises OSError.

    others  workers that run, whose files are none of its business
    """
    return _fork(options, others) if _may_fork() else _launch(options)


def _may_fork() -> bool:
    try:
        return hasattr(os, "fork") and len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _fork(options: Options, others: Iterable[Process]) -> Process:
    if sys.platform == "win32":
        raise OSError
    orders, to = os.pipe()
    back, answers = os.pipe()
    with held():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for descriptor in (to, back):
                    os.close(descriptor)
                for other in others:
                    other.orders.close()
                    other.answers.close()
                code = serve(orders, answers, options)
            finally:
                os._exit(code)  # nothing of the command's may run twice
    os.close(orders)
    os.close(answers)
    return Process(pid, open(to, "wb", buffering=0), open(back, "rb", buffering=0))


def _launch(options: Options) -> Process:
    import socket  # these take 10 ms, and a fork does without them
    import subprocess  # nosec B404
    from threading import Thread

    more: dict[str, Any] = {}
    if sys.platform == "win32":
        more["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP  # Ctrl-C is not for it
    pipe = subprocess.PIPE
    with held():
        command = own_program(serve.__module__)
        started = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, **more)  # nosec B603
    assert started.stdin and started.stdout
    pumped, answers = socket.socketpair()  # Windows cannot wait for several pipes, but for sockets
    Thread(target=_pump, args=(started.stdout, pumped), daemon=True).start()
    with suppress(OSError):  # it has ended already, and whoever listens will hear so
        first = {"options": options.to_json(), "hide_names": names_are_hidden()}
        started.stdin.write((json.dumps(first) + "\n").encode("ascii"))
    return Process(started.pid, started.stdin, socket.SocketIO(answers, "r"), started)


def _pump(source: IO[bytes], into: socket.socket) -> None:
    with source, into, suppress(OSError):  # nobody listens any more
        while piece := source.read(PIECE):
            into.sendall(piece)
