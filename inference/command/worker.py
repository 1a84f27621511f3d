"""The process that does the work: it loads the networks once and segments one scan after another.

The supervisor forks it and talks to it in JSON lines. An order is {"case": fields of a Case, "way": fields of a Way},
or with null for the way, which asks for an empty label map; answers are

    {"ready": {...}}               once, what was loaded
    {"fatal": [code, message]}     instead: exit code and sentence of a VisceraError
    {"network": name, "most": n}   a network begins, with at most n windows
    {"window": 1}                  a window is done
    {"record": {...}}              the order is done; its status says how
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import errors, machine
from ..card import smaller_way
from ..errors import CaseError, DeviceError, UnwrittenError, VisceraError, one_line
from ..formats.cases import Case
from ..options import Way

if TYPE_CHECKING:
    import numpy as np

    from ..predictor import Predictor
    from ..scan import Scan
    from ..segment import Report

LOADED_BY = ("weights", "networks", "device", "engine", "precision", "plan", "step", "threads", "accept_intensities")
Send = Callable[[dict[str, Any]], None]
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(orders: int, answers: int, options: dict[str, Any]) -> int:
    """Work until `orders` (a file descriptor) closes; returns the exit code. `options` are the command line's.

    Ctrl-C and the like reach the worker as well, and are held back from it: the supervisor decides.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker does not outlive its supervisor
    machine.limit_threads(options["threads"])
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
            name, scan, labels = (order["case"][field] for field in ("name", "scan", "labels"))
            case = Case(name, Path(scan), Path(labels))
            send({"record": worker.segment(case, Way(**order["way"])) if order["way"] else worker.empty(case)})
    return 0


class Worker:
    """Networks, loaded with the command line's `options`, and what is said about each scan."""

    def __init__(self, options: dict[str, Any], send: Send) -> None:
        from ..predictor import Predictor  # NumPy and an engine come with it

        self.send = send
        start = perf_counter()
        self.options = {name: options[name] for name in LOADED_BY}
        self.predictor: Predictor = Predictor(**self.options)
        self.loading = perf_counter() - start
        choice = self.predictor.choice
        self.taken = {
            "device": choice.device,
            "engine": choice.engine,
            "precision": choice.precision,
            "why": list(choice.why),
        }
        send({"ready": self.taken})

    def segment(self, case: Case, way: Way) -> dict[str, Any]:
        """Segment a scan and write its label map; the record says what happened. Nothing is raised."""
        record: dict[str, Any] = {
            "status": "done",
            "error": None,
            "seconds": {"load": self.loading},  # of the networks: paid once, in the first case's time
            **self.taken,
            "windows_run": 0,
            "windows_skipped": 0,
            "fallback": [],
            "warnings": [],
        }
        self.loading = 0.0
        machine.reset_peak_memory()
        start = perf_counter()
        try:
            self._segment(case, record, way)
        except Exception as error:
            record |= {"status": "failed", "error": _cause(error)}
            if isinstance(error, UnwrittenError):
                record["unwritten"] = True
        record["seconds"]["total"] = perf_counter() - start
        record["peak_memory_mb"] = machine.peak_memory_mb()
        return record

    def empty(self, case: Case) -> dict[str, Any]:
        """Write a label map without labels for a scan that failed, if its header can be read."""
        from ..formats.reading import write_empty

        try:
            written = write_empty(case.scan, case.labels)
        except Exception as error:
            return {"status": "failed", "error": _cause(error)}
        return {"status": "done", "error": None, "output_sha256": written.sha256}

    def _segment(self, case: Case, record: dict[str, Any], way: Way) -> None:
        import numpy as np

        from ..formats.nifti import file as nifti
        from ..formats.reading import read_scan
        from .sidecar import scan_digest

        seconds = record["seconds"]
        start = perf_counter()
        scan = read_scan(case.scan, self.predictor.accept_intensities)
        record["input_sha256"] = scan_digest(case.scan)
        seconds["read"] = perf_counter() - start
        record["shape"], record["spacing"] = list(scan.grid.shape), list(scan.grid.spacing)
        labels, report = self._labels(scan, record, way)
        seconds |= report.seconds
        record["warnings"] = [*scan.warnings, *report.warnings, *record["fallback"]]
        record["dropped"] = report.dropped
        _count_windows(record, report)
        ml = scan.grid.voxel_ml
        # Plane by plane: of a whole volume NumPy would make a copy of eight bytes a voxel.
        counts = np.sum([np.bincount(plane.reshape(-1), minlength=256) for plane in labels], axis=0)
        record["labels"] = {
            str(value): {
                "name": name,
                "voxels": int(counts[value]),
                "ml": round(float(counts[value]) * ml, 3),
            }
            for value, name in sorted(self.predictor.labels.items())
            if counts[value]
        }
        start = perf_counter()  # last of all: once a label map is there, nothing may fail any more
        written = nifti.write_labels(case.labels, labels, scan)
        seconds["write"] = perf_counter() - start
        record["output_sha256"] = written.sha256
        if written.doubt:
            record["warnings"].append(written.doubt)

    def _labels(self, scan: Scan, record: dict[str, Any], way: Way) -> tuple[np.ndarray, Report]:
        """Segment; where memory runs out, again in smaller windows if a network takes them, and from a GPU at last on
        the CPU.
        """
        from ..predictor import Predictor

        if way.most_voxels < self.predictor.way.most_voxels:  # a worker before this one was lost
            record["fallback"].append(_smaller(way))
        # A try that failed has to be left before the next: its exception holds all that it had allocated.
        tries = [way, smaller_way(self.predictor.cards, way)]
        for number, one in enumerate(way for way in tries if way):
            if number:
                record["fallback"].append(_smaller(one))
            with suppress(MemoryError):
                return self.predictor.segment(scan, self._begin, one)
        if record["device"] == "cpu":
            raise MemoryError
        record["fallback"].append("there was too little memory on the GPU: on the CPU")
        predictor = Predictor(**self.options | {"device": "cpu", "engine": "auto", "precision": "auto"})
        record |= {"device": "cpu", "engine": predictor.choice.engine, "precision": predictor.choice.precision}
        return predictor.segment(scan, self._begin, one)

    def _begin(self, network: str, most: int) -> Callable[[], None]:
        self.send({"network": network, "most": most})
        return lambda: self.send({"window": 1})


def _smaller(way: Way) -> str:
    return f"there was too little memory at first: in windows of {way.most_voxels:,} voxels at most"


def _cause(error: Exception) -> str:
    """Why a case failed, in a sentence. A fault of ours is said as such, with its traceback on stderr."""
    if isinstance(error, CaseError):
        return str(error)
    if machine.ran_out(error):
        return "not enough memory for this scan"
    text = f"internal error: {type(error).__name__}"
    if not errors.names_are_hidden():  # a message of Python's can hold a path
        text += f": {one_line(error)}"
        traceback.print_exception(error)
    return text


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


def _count_windows(record: dict[str, Any], report: Report) -> None:
    record["windows"] = report.windows
    record["windows_run"] = sum(network["run"] for network in report.windows.values())
    record["windows_skipped"] = sum(network["skipped"] for network in report.windows.values())
