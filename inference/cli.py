"""`python -m inference INPUTS OUTPUTS`: arguments, the loop over cases, progress, exit code.

Nothing but the standard library is imported before the arguments were understood.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from inference import __version__, machine
from inference.atomic import remove_parts, write_atomically
from inference.cases import Case, find_cases
from inference.errors import CaseError, OutputError, VisceraError, shown

if TYPE_CHECKING:
    from inference.predictor import Predictor
    from inference.segment import Report

SOME_FAILED, ALL_FAILED = 8, 4
STOPPED = 128  # plus the signal's number, as a shell reports it: 143 for SIGTERM, 130 for SIGINT

DESCRIPTION = "Segment abdominal organs and tumours in CT scans. Research use only."


class Stopped(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no handler of errors swallows it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (see inference.errors)."""
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    run = Run(options)
    try:
        return run.cases()
    except VisceraError as error:
        say_error(str(error))
        return error.exit_code
    except Stopped as stopped:
        say_error(f"stopped by {signal.Signals(stopped.args[0]).name}; finished cases are kept")
        return STOPPED + int(stopped.args[0])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; one line a flag."""
    parser = argparse.ArgumentParser(prog="python -m inference", description=DESCRIPTION)
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUTS",
        type=Path,
        help="a folder of X_0000.nii.gz, one scan, or the folder of a DICOM series",
    )
    add("outputs", metavar="OUTPUTS", type=Path, help="folder for the label maps X.nii.gz")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where it can be had")
    add("--engine", choices=("auto", "openvino", "onnxruntime", "torch"), default="auto", help="what runs the networks")
    add("--plan", choices=("abdomen", "dense"), default="abdomen", help="windows: only where the abdomen is, or all")
    add(
        "--step", type=_step, default=0.5, metavar="SHARE", help="distance of windows, share of the patch (default 0.5)"
    )
    add("--precision", choices=("auto", "f32", "bf16", "f16"), default="auto", help="of the networks' arithmetic")
    add("--weights", type=Path, metavar="DIR", help="folder of exported networks (default: those of this program)")
    add("--networks", type=_names, metavar="NAMES", help="in rising priority (default: organ,tumor if there, else all)")
    add("--case", action="append", default=[], metavar="NAME", help="only this case; may be repeated")
    add("--resume", action="store_true", help="leave out cases whose label map is there, whole, and fits the scan")
    add("--threads", type=_count, metavar="N", help="processors to use (default: all that this process may)")
    add("--json", type=Path, metavar="FILE", help="write one record a case: times, memory, windows, warnings")
    add("--version", action="version", version=f"viscera {__version__}")
    return parser.parse_args(arguments)


class Run:
    """One call of the command: the cases, one after another, and what is to be said about each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.threads: int = options.threads or machine.usable_cpus()
        self.records: list[dict[str, Any]] = []
        machine.limit_threads(self.threads)

    def cases(self) -> int:
        """Segment every case; a failed one does not stop the others. Returns the exit code."""
        options = self.options
        cases, warnings = find_cases(options.inputs, options.outputs, options.case)
        for warning in warnings:
            say_warning(warning)
        _make_writable(options.outputs)
        remove_parts(case.labels for case in cases)
        if options.json:
            _make_writable(options.json.parent)
            self.save_records()

        from inference.predictor import WEIGHTS, Predictor

        start = perf_counter()
        predictor = Predictor(
            options.weights or WEIGHTS,
            networks=options.networks,
            device=options.device,
            engine=options.engine,
            precision=options.precision,
            plan=options.plan,
            step=options.step,
            threads=self.threads,
        )
        loading = perf_counter() - start
        say(", ".join(predictor.choice.why) or "device, engine and precision as asked for")
        failed = 0
        for number, case in enumerate(cases, 1):
            record = self._case(case, predictor, f"[{number}/{len(cases)}] {shown(case.name)}")
            record["seconds"]["load"] = loading  # of the networks: paid once, in the first case's time
            loading = 0.0
            self.records.append(record)
            self.save_records()
            failed += record["status"] == "failed"
        if failed:
            say_error(f"{failed} of {len(cases)} cases failed")
        return 0 if not failed else ALL_FAILED if failed == len(cases) else SOME_FAILED

    def _case(self, case: Case, predictor: Predictor, title: str) -> dict[str, Any]:
        record: dict[str, Any] = {
            "case": shown(case.name),
            "status": "done",
            "error": None,
            "seconds": {},
            "device": predictor.choice.device,
            "engine": predictor.choice.engine,
            "precision": predictor.choice.precision,
            "why": list(predictor.choice.why),
            "threads": self.threads,
            "plan": predictor.plan,
            "step": predictor.step,
            "windows_run": 0,
            "windows_skipped": 0,
            "warnings": [],
        }
        machine.reset_peak_memory()
        start = perf_counter()
        try:
            self._segment(case, predictor, title, record)
        except CaseError as error:
            _fail(record, title, str(error))
        except MemoryError:
            _fail(record, title, "not enough memory for this scan")
        except Exception as error:  # a fault of ours: said as such, and the other cases go on
            traceback.print_exc()
            _fail(record, title, f"internal error: {type(error).__name__}: {error}")
        record["seconds"]["total"] = perf_counter() - start
        record["peak_memory_mb"] = machine.peak_memory_mb()
        if record["status"] == "done":
            say(f"{title}: {record['seconds']['total']:.1f} s, {len(record['labels'])} labels -> {shown(case.labels)}")
        return record

    def _segment(self, case: Case, predictor: Predictor, title: str, record: dict[str, Any]) -> None:
        import numpy as np

        from inference import nifti
        from inference.reading import read_scan

        if case.twin:
            raise CaseError(f"{shown(case.scan.name)} is left out: {shown(case.twin.name)} has the same case name")
        seconds = record["seconds"]
        start = perf_counter()
        scan, header = read_scan(case.scan)
        seconds["read"] = perf_counter() - start
        record["shape"], record["spacing"] = list(scan.voxels.shape), list(scan.spacing)
        if self.options.resume and nifti.labels_match(case.labels, header):
            record["status"] = "kept"
            say(f"{title}: kept, {shown(case.labels)} is there and fits the scan")
            return
        with _Bars(title) as bars:
            labels, report = predictor.segment(scan, bars.start)
        seconds |= report.seconds
        start = perf_counter()
        nifti.write_labels(case.labels, labels, header)
        seconds["write"] = perf_counter() - start
        record["warnings"] = [*scan.warnings, *report.warnings]
        for warning in record["warnings"]:
            say_warning(f"{title}: {warning}")
        _count_windows(record, report)
        voxel_ml = float(np.prod(scan.spacing)) / 1000
        counts = np.bincount(labels.ravel(), minlength=256)
        record["labels"] = {
            str(value): {"name": name, "voxels": int(counts[value]), "ml": round(float(counts[value]) * voxel_ml, 3)}
            for value, name in sorted(predictor.labels.items())
            if counts[value]
        }

    def save_records(self) -> None:
        """Write --json anew, whole: a reader never sees half of it."""
        if self.options.json is None:
            return
        text = json.dumps(self.records, indent=2, allow_nan=False) + "\n"
        try:
            write_atomically(self.options.json, text.encode())
        except OSError as error:
            raise OutputError(f"{shown(self.options.json)} cannot be written: {error.strerror}") from error


class _Bars(AbstractContextManager["_Bars"]):
    """A bar per network on a terminal, a step per window; nothing elsewhere."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None

    def start(self, network: str, most: int) -> Callable[[], None]:
        if not sys.stderr.isatty():
            return lambda: None
        from tqdm import tqdm

        self._close()
        self.bar = tqdm(total=most, desc=f"{self.title} {network}", unit="window", leave=False)
        return lambda: self.bar.update()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __exit__(self, *_: object) -> None:
        self._close()


def say(text: str) -> None:
    print(text, flush=True)


def say_warning(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def say_error(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)


def _fail(record: dict[str, Any], title: str, cause: str) -> None:
    record["status"], record["error"] = "failed", cause
    say_error(f"{title}: {cause}")


def _count_windows(record: dict[str, Any], report: Report) -> None:
    record["windows"] = report.windows
    record["windows_run"] = sum(network["run"] for network in report.windows.values())
    record["windows_skipped"] = sum(network["skipped"] for network in report.windows.values())


def _make_writable(folder: Path) -> None:
    """Create the folder if need be and prove that a file can be made in it. Raises OutputError."""
    probe = folder / f".viscera.{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written by user {os.getuid()}: {error.strerror}; "
            'with docker, --user "$(id -u):$(id -g)" runs as you'
        ) from error


def _stop(number: int, _: object) -> None:
    raise Stopped(number)


def _step(text: str) -> float:
    step = float(text)
    if not 0 < step <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return step


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return count


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
