"""Programs that call the command's `main` themselves: `python -m tests.inference.caller NAME ARGUMENTS...`

Each in a process of its own, with signals and streams as Python sets them up, and not in that of pytest, whose handler
of faults and whatever other tests have loaded lie under them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from inference.command.cli import main
from inference.errors import names_are_hidden

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def state() -> tuple[Any, ...]:
    handlers = [signal.getsignal(number) for number in (INT, TERM, HUP, signal.SIGALRM)]
    return handlers, dict(os.environ), sys.stdin, sys.stdout, sys.stderr, signal.pthread_sigmask(signal.SIG_BLOCK, ())


def leaves_its_caller_as_it_was(arguments: list[str]) -> None:
    before = state()
    assert main(arguments) == 0
    assert main([str(Path(arguments[0]).parent / "absent"), *arguments[1:]]) == 5
    with pytest.raises(SystemExit):
        main(["--help"])
    assert state() == before
    assert not names_are_hidden()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(INT)


def is_stopped_by_a_signal(arguments: list[str]) -> None:
    before = state()

    def interrupt() -> None:
        while signal.getsignal(INT) == signal.default_int_handler:
            time.sleep(0.001)
        os.kill(os.getpid(), INT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = main(arguments)
    thread.join()
    assert code == 130
    time.sleep(1.2)  # nothing comes later either
    assert state() == before


def runs_in_another_thread(arguments: list[str]) -> None:
    codes: list[int] = []
    before = state()
    thread = threading.Thread(target=lambda: codes.append(main(arguments)))
    thread.start()
    while thread.is_alive():
        assert [signal.getsignal(number) for number in (INT, TERM, HUP, signal.SIGALRM)] == before[0]
        time.sleep(0.02)
    assert codes == [0]
    assert state() == before


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
