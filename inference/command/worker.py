"""The process that does the work: it loads the networks once and segments one scan after another.

It is talked to in JSON lines. An order is {"case": name, files and outputs of a Case, "way": fields of a
Way}, or with null for the way, which asks for an empty label map; answers are

    {"ready": {...}}               once, what was loaded
    {"fatal": [code, message]}     instead: exit code and sentence of a VisceraError
    {"network": name, "most": n}   a network begins, with at most n windows
    {"window": 1}                  a window is done
    {"record": {...}}              the order is done: a Record, whose status says how
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import errors, machine
from ..engines.lean import leave_out_compiler
from ..errors import DeviceError, VisceraError, one_line
from ..formats.cases import Case
from ..options import Options, Way
from ..record import Record
from .console import forgiving_streams
from .stopping import SIGNALS

if TYPE_CHECKING:
    from ..predictor import Predictor

Send = Callable[[dict[str, Any]], None]
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(orders: int, answers: int, options: Options) -> int:
    """Work until `orders` (a file descriptor) closes; returns the exit code.

    Ctrl-C and the like reach the worker as well, and are held back from it: whoever started it decides.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker does not outlive its command
    leave_out_compiler()
    machine.limit_threads(options.threads or machine.usable_cpus())
    out = os.fdopen(answers, "w", encoding="ascii")

    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message, allow_nan=False), file=out, flush=True)

    try:
        worker = Worker(options, send)
    except Exception as error:
        send({"fatal": _fatal(error)})
        return 0
    with os.fdopen(orders, encoding="ascii") as lines:
        for line in lines:
            order = json.loads(line)
            name, files, outputs = (order["case"][field] for field in ("name", "files", "outputs"))
            case = Case(name, tuple(map(Path, files)), tuple(map(Path, outputs)))
            record = worker.segment(case, Way(**order["way"])) if order["way"] else worker.empty(case)
            send({"record": record.to_json()})
    return 0


def main() -> None:
    """The process as a program: options are the first line of its input, answers go to its output."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with open(0, "rb", buffering=0, closefd=False) as orders:
        first = json.loads(orders.readline())
    answers = os.dup(1)
    os.dup2(2, 1)  # so that nothing that a library prints is taken for an answer
    errors.hide_names(first["hide_names"])
    with forgiving_streams():
        code = serve(0, answers, Options.from_json(first["options"]))
    os._exit(code)


class Worker:
    """Networks, loaded with `options`, and what is said about each scan; it passes on how far one is."""

    def __init__(self, options: Options, send: Send) -> None:
        from ..predictor import Predictor  # NumPy and an engine come with it

        self.send = send
        start = perf_counter()
        self.predictor: Predictor = Predictor(options)
        self.loading = perf_counter() - start
        choice = self.predictor.choice
        taken = {"device": choice.device, "engine": choice.engine, "precision": choice.precision}
        send({"ready": taken | {"why": list(choice.why)}})

    def segment(self, case: Case, way: Way) -> Record:
        """Segment a scan and write its label map. Nothing is raised."""
        from ..task import run_case

        record = run_case(self.predictor, case, self, way)
        record.seconds = {"load": self.loading, **record.seconds}  # of the networks: paid once, by the first case
        self.loading = 0.0
        return record

    def empty(self, case: Case) -> Record:
        """Write a label map without labels for a scan that failed, if its header can be read."""
        from ..cards import digests
        from ..formats import reading
        from ..formats.written import Description
        from ..task import cause, digests_of

        try:
            about = Description(self.predictor.labels, digests(self.predictor.cards), self.predictor.options.anonymous)
            written = reading.write_empty(case.scan, case.label_maps, about)
        except Exception as error:
            return Record(error=cause(error))
        return Record(status="done", outputs=digests_of(case.label_maps, written))

    def network(self, name: str, most: int) -> None:
        self.send({"network": name, "most": most})

    def window(self) -> None:
        self.send({"window": 1})


def _fatal(error: Exception) -> list[Any]:
    """Exit code and sentence for an error that the networks could not be loaded for."""
    if isinstance(error, VisceraError):
        return [error.exit_code, str(error)]
    if machine.ran_out(error):
        return [DeviceError.exit_code, "not enough memory to load the networks"]
    if isinstance(error, (ImportError, OSError, SystemError)):  # the last: a library that was half loaded
        return [DeviceError.exit_code, f"a library cannot be loaded: {one_line(error)}"]
    traceback.print_exception(error)
    return [VisceraError.exit_code, f"internal error: {type(error).__name__}: {one_line(error)}"]
