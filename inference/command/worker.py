"""The process that does the work: it loads the networks once and segments one scan after another.

It is talked to in JSON lines. An order is {"case": name, files, outputs and pictures of a Case, "ways": the
fields of a Way for each network, "container": bytes, "threads": n}, or with null for the ways, which asks for an empty
label map; answers are

    {"ready": {...}}               once, what was loaded
    {"fatal": [code, message]}     instead: exit code and sentence of a VisceraError
    {"network": name, "most": n}   a network begins, with at most n windows
    {"window": 1}                  a window is done
    {"record": {...},              the order is done: a Record, whose status says how,
     "spent": false}               and whether this process is of no more use, as Predictor has it

Where other workers use the same memory, "container" is what all of them may have; it is null else. Then there is one
answer more, before the scan is read:

    {"needs": n}                   it takes so many bytes at most, and waits for the order {"go": true}

"threads" is null, or how many it has from now on: the only worker of a GPU was started as one of many.
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
from ..engines.lean import start_lean
from ..errors import DeviceError, VisceraError, one_line
from ..formats.cases import Case
from ..formats.sources import Picture, Volume
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
    machine.limit_threads(options.threads or machine.usable_cpus())
    out = os.fdopen(answers, "w", encoding="ascii")

    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message, allow_nan=False), file=out, flush=True)

    lines = os.fdopen(orders, encoding="ascii")

    def go() -> None:
        if not lines.readline():  # nobody is there any more
            sys.exit()

    try:
        start_lean()
        worker = Worker(options, send, go)
    except Exception as error:
        send(fatal(error))
        return 0
    while line := lines.readline():
        send(worker.obey(json.loads(line)))
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
    """Networks, loaded with `options`, and what is said about each scan; it passes on how far one is.

    go  returns once the scan that waits may be read
    """

    def __init__(self, options: Options, send: Send, go: Callable[[], None]) -> None:
        from ..predictor import Predictor  # NumPy and an engine come with it

        self.send, self.go = send, go
        start = perf_counter()
        self.predictor: Predictor = Predictor(options)
        self.loading = perf_counter() - start
        choice = self.predictor.choice
        taken = {"device": choice.device, "engine": choice.engine, "precision": choice.precision}
        send({"ready": taken | {"why": list(choice.why)}})

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what an order asks for, and return the answer that ends it. Nothing is raised."""
        case, ways, container = _case(order["case"]), order["ways"], order["container"]
        if order["threads"]:  # the network is on a GPU: they are of those who read
            machine.limit_threads(order["threads"])
            self.predictor.threads = order["threads"]
        record = self.segment(case, tuple(Way(**way) for way in ways), container) if ways else self.empty(case)
        return {"record": record.to_json(), "spent": self.predictor.spent}

    def segment(self, case: Case, ways: tuple[Way, ...], container: int | None = None) -> Record:
        """Segment a scan and write its label map. Nothing is raised.

        container  bytes that all workers may have; None: there is no other
        """
        from ..task import Share, run_case

        share = None if container is None else Share(container, self.wait)
        record = run_case(self.predictor, case, self, ways, share)
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
            options = self.predictor.options
            about = Description(self.predictor.labels, digests(self.predictor.cards), options.anonymous)
            written = reading.write_empty(case.sources[0], case.label_maps, about, options.resample)
        except Exception as error:
            return Record(error=cause(error))
        return Record(status="done", outputs=digests_of(case.label_maps, written))

    def wait(self, need: int) -> None:
        self.send({"needs": need})
        self.go()

    def network(self, name: str, most: int) -> None:
        self.send({"network": name, "most": most})

    def window(self) -> None:
        self.send({"window": 1})


def _case(fields: dict[str, Any]) -> Case:
    files, outputs = (tuple(map(Path, fields[name])) for name in ("files", "outputs"))
    volume = None
    if pictures := fields.get("pictures"):
        volume = Volume(files[0], tuple(Picture(Path(file), frame) for file, frame in pictures))
    return Case(fields["name"], files, outputs, volume=volume)


def fatal(error: Exception) -> dict[str, Any]:
    """The answer where an error keeps the networks from being loaded."""
    if isinstance(error, VisceraError):
        code, text = error.exit_code, str(error)
    elif machine.ran_out(error):
        code, text = DeviceError.exit_code, "not enough memory to load the networks"
    elif isinstance(error, (ImportError, OSError, SystemError)):  # the last: a library that was half loaded
        code, text = DeviceError.exit_code, f"a library cannot be loaded: {one_line(error)}"
    else:
        traceback.print_exception(error)
        code, text = VisceraError.exit_code, f"internal error: {type(error).__name__}: {one_line(error)}"
    return {"fatal": [code, text]}
