"""`python -m inference INPUTS OUTPUTS`: arguments, the loop over cases, progress, exit code.

Nothing but the standard library is imported here: the work is done by a process of its own, the worker.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import __version__, errors, machine
from ..card import WEIGHTS, read_cards, smaller_way, way_of
from ..errors import OutputError, UnwrittenError, VisceraError, retold, shown
from ..formats.atomic import remove_parts, write_atomically, write_json
from ..formats.cases import Case, LeftOut, find_cases
from ..formats.outputs import (
    Identity,
    check_labels,
    check_records,
    forget_copy,
    identities,
    in_the_way,
    input_files,
    is_summary,
    make_room,
)
from ..names import record_file
from ..options import WAYS, Way
from . import sidecar
from .console import forgiving_streams, say, say_error, say_warning
from .stopping import Stopped, Stopping
from .supervisor import LostError, Supervisor

SOME_FAILED, ALL_FAILED = 8, 4
SAVE_EVERY = 10.0  # s between two writes of --json: each writes all of it, and time must not go with the square

DESCRIPTION = "Segment abdominal organs and tumours in CT scans. Research use only."


def main(arguments: Sequence[str | Path] | None = None) -> int:
    """Run the command; returns its exit code (see errors). Leaves this process as it was."""
    with forgiving_streams(), Stopping() as stopping:
        try:
            return _run(parse(arguments), stopping)
        except Stopped as stopped:
            say_error(f"stopped by {stopped.name} before the first case")
            return stopped.exit_code


def _run(options: argparse.Namespace, stopping: Stopping) -> int:
    hidden = errors.names_are_hidden()
    errors.hide_names(options.hash_names)
    run = Run(options, stopping)
    try:
        return run.cases()
    except VisceraError as error:
        say_error(str(error))
        return error.exit_code
    finally:
        stopping.over()
        run.supervisor.stop()
        errors.hide_names(hidden)


def parse(arguments: Sequence[str | Path] | None = None) -> argparse.Namespace:
    """The command line; one line a flag."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__.partition('.')[0]}", description=DESCRIPTION)
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUTS",
        type=_path,
        help="a folder of X_0000.nii.gz, one scan, or the folder of a DICOM series",
    )
    add("outputs", metavar="OUTPUTS", type=_path, help="folder for the label maps X.nii.gz")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda if available")
    add("--engine", choices=("auto", "openvino", "onnxruntime", "torch"), default="auto", help="what runs the networks")
    add("--plan", choices=tuple(WAYS), help="windows: only where the abdomen is, or all (default: as the networks say)")
    add(
        "--step", type=_step, default=0.5, metavar="SHARE", help="distance of windows, share of the patch (default 0.5)"
    )
    add(
        "--precision",
        choices=("auto", "f32", "bf16", "f16", "int8"),
        default="auto",
        help="of the networks' arithmetic",
    )
    add(
        "--weights",
        type=_path,
        default=WEIGHTS,
        metavar="DIR",
        help="folder of exported networks (default: those of this program)",
    )
    add("--networks", type=_names, metavar="NAMES", help="in increasing priority (default: organ,tumor, else all)")
    add("--case", type=_name, action="append", default=[], metavar="NAME", help="only this case; may be repeated")
    add("--resume", action="store_true", help="skip cases whose label map was made from the same scan in the same way")
    add("--accept-intensities", action="store_true", help="segment even what cannot be CT in HU, with a warning")
    add("--on-error", choices=("skip", "empty"), default="skip", help="a failed case: no label map, or an empty one")
    add("--timeout", type=_seconds, default=600.0, metavar="S", help="seconds without progress: a case fails (600)")
    add("--threads", type=_count, metavar="N", help="processors to use (default: all that this process may)")
    add("--json", type=_path, metavar="FILE", help="write one record per case: times, memory, windows, warnings")
    add("--no-sidecar", dest="sidecar", action="store_false", help="write no X.json beside X.nii.gz, no summary.json")
    add("--hash-names", action="store_true", help="names of files as a hash in logs and records")
    add("--version", action="version", version=f"viscera {__version__}")
    return parser.parse_args(None if arguments is None else [os.fspath(one) for one in arguments])


class Run:
    """One call of the command: the cases, one after another, and what is to be said about each."""

    def __init__(self, options: argparse.Namespace, stopping: Stopping) -> None:
        options.threads = options.threads or machine.usable_cpus()
        self.options = options
        self.stopping = stopping
        self.records: list[dict[str, Any]] = []
        self.supervisor = Supervisor(vars(options), options.timeout, stopping.check)
        self.taken: dict[str, Any] = {}  # what the worker loaded: device, engine, precision, why
        self.left_out: list[LeftOut] = []
        self.written: set[tuple[Identity, str]] = set()  # label maps of this run
        self.said: set[str] = set()  # warnings of records that hold for the whole run
        self.started = _now()
        self.save_at = 0.0  # when --json is to be written again, by perf_counter

    def cases(self) -> int:
        """Segment every case; a failed one does not stop the others. Returns the exit code."""
        options = self.options
        found = find_cases(options.inputs, options.outputs, options.case)
        cases, self.left_out = found.cases, found.left_out
        for warning in found.warnings:
            say_warning(warning)
        self.cards = read_cards(options.weights, options.networks)
        self.way = way_of(self.cards, options.plan, options.step)
        inputs = input_files(options.inputs, options.weights)
        for case in cases:
            check_labels(case.labels, inputs)
        self._prepare(options.outputs)
        own = [path for case in cases for path in (case.labels, record_file(case.labels))]
        own.append(options.outputs / "summary.json")
        remove_parts(own)
        if options.json:
            self._prepare(options.json.parent)
            check_records(options.json, own, inputs)
            remove_parts([options.json])
            self._save_records()
        ending = None
        try:
            for number, case in enumerate(cases, 1):
                self.stopping.check()
                self.records.append(self._case(case, f"[{number}/{len(cases)}] {shown(case.name)}"))
                if perf_counter() >= self.save_at:
                    with suppress(OutputError):  # tried again, and said where it fails at the end
                        self._save_records()
            code = self._exit_code()
            self.stopping.over()
        except Stopped as stopped:
            code, ending = stopped.exit_code, f"stopped by {stopped.name}; finished cases are kept"
            self.supervisor.stop()
            with suppress(OSError):
                remove_parts(own)
        except VisceraError as error:  # the worker was lost, and another cannot be started
            if not self.records:
                raise
            code, ending = error.exit_code, str(error)
            self.stopping.over()
        code = self._finish(cases, code)
        if ending:  # said last: a stream that nobody reads may block
            say_error(ending)
        return code

    def _finish(self, cases: list[Case], code: int) -> int:
        """Write what is written once, at the end; returns the exit code."""
        try:
            self._save_records()
        except OutputError as error:
            say_error(str(error))
            code = code or error.exit_code
        try:
            self._summarise(cases, code)
        except OutputError as error:
            say_error(str(error))
            code = code or error.exit_code
        return code

    def _exit_code(self) -> int:
        """Of a run that came to its end."""
        failed = [record for record in self.records if record["status"] == "failed"]
        if failed:
            say_error(f"{len(failed)} of {len(self.records)} cases failed")
        if len(failed) == len(self.records):
            return OutputError.exit_code if any(record.get("unwritten") for record in failed) else ALL_FAILED
        return SOME_FAILED if failed or any(one.is_scan for one in self.left_out) else 0

    def _prepare(self, folder: Path) -> None:
        doubt = _make_writable(folder)
        if doubt and doubt not in self.said:
            say_warning(doubt)
            self.said.add(doubt)

    def _case(self, case: Case, title: str) -> dict[str, Any]:
        """Segment a case, or keep what is there; write its sidecar and say how it went."""
        record: dict[str, Any] = {
            "case": shown(case.name),
            "status": "failed",
            "error": None,
            "warnings": [],
            "seconds": {},
            "program": __version__,
            "labels_version": sidecar.LABELS,
            "weights": sidecar.weights_digests(self.cards),
            "threads": self.options.threads,
            "plan": self.way.name,
            "step": self.way.step,
        }
        start, before = perf_counter(), None
        if taken := self._taken_name(case):
            record["error"] = taken
        elif self.options.resume and (kept := sidecar.fits(case, self.cards, self.way, self.options.precision)):
            say(f"{title}: kept, {shown(case.labels.name)} was made from this scan by these networks")
            self.written |= _file(case.labels)
            warnings = [retold(warning, case.name) for warning in kept["warnings"]]
            return kept | {"case": shown(case.name), "status": "kept", "warnings": warnings}
        else:
            made, before = self._labelled(case, title)
            record |= made
        record["seconds"]["total"] = perf_counter() - start
        for warning in record["warnings"]:
            if warning not in self.said:
                say_warning(f"{title}: {warning}")
        if record["status"] == "failed":
            say_error(f"{title}: {record['error']}")
            if self.options.on_error == "empty" and not taken and "unwritten" not in record:
                record |= self._empty(case, title)
        else:
            say(f"{title}: {record['seconds']['total']:.1f} s, {len(record['labels'])} labels -> {shown(case.labels)}")
        if forget_copy(before, record.get("output_sha256", "")):
            record["warnings"].append(_moved(case))
            say_warning(f"{title}: {_moved(case)}")
        if not taken:
            self.written |= _file(case.labels)
            if self.options.sidecar and (doubt := sidecar.write(case.labels, record)):
                record["warnings"].append(doubt)
                say_warning(f"{title}: {doubt}")
        return record

    def _taken_name(self, case: Case) -> str | None:
        """Why the labels of a case would take the place of those of another case of this run, if so."""
        name = shown(case.scan.name)
        if case.twin:
            return f"{name} is left out: {shown(case.twin.name)} has the same case name"
        if _file(case.labels) & self.written:  # a file system may take A.nii.gz and a.nii.gz for one file
            return f"{name} is left out: another case of this run has written {shown(case.labels.name)} already"
        return None

    def _labelled(self, case: Case, title: str) -> tuple[dict[str, Any], Path | None]:
        """The record of a case whose labels are made now, and where an earlier label map is if it was renamed.

        It goes first, whatever comes of this.
        """
        self._load()
        try:
            before = make_room(case.labels)
        except UnwrittenError as error:
            return {**self.taken, "status": "failed", "error": str(error), "unwritten": True}, None
        try:
            record = {"warnings": [], **self._segmented(case, title, self.way)}
        except BaseException:  # a signal, or no worker any more
            if before:
                say_warning(f"{title}: {_moved(case)}")
            raise
        if record["status"] == "failed":
            with suppress(OSError):  # a worker may be killed after it has written them
                case.labels.unlink()
        return record, before

    def _load(self) -> None:
        """Start the worker if none is alive."""
        if self.supervisor.pid is None:
            self.taken = self.supervisor.ready()
            if not self.records:
                say(", ".join(self.taken["why"]) or "device, engine and precision as asked for")

    def _segmented(self, case: Case, title: str, way: Way) -> dict[str, Any]:
        """The worker's record of a case, or one that says how the worker was lost.

        A worker that is killed, as the kernel does where memory is too small, gets a second try with less of it, if a
        network can do with less.
        """
        self._load()
        with _Bars(title) as bars:
            try:
                return self.supervisor.order(case, way, bars.show)
            except LostError as lost:
                if lost.memory and (smaller := smaller_way(self.cards, way)):
                    say_warning(f"{title}: the process that segmented it {lost}; once more with the least memory")
                    return self._segmented(case, title, smaller)
                return {**self.taken, "status": "failed", "error": f"the process that segmented it {lost}"}

    def _empty(self, case: Case, title: str) -> dict[str, Any]:
        """Write an empty label map for a failed case: it stays a failure, but a file is there, whose digest returns."""
        self._load()
        try:
            done = self.supervisor.order(case, None, lambda _: None)
        except LostError as lost:
            done = {"status": "failed", "error": f"the process {lost}"}
        if done["status"] == "failed":
            say_error(f"{title}: no empty label map either: {done['error']}")
            return {}
        say_warning(f"{title}: an empty label map was written, as --on-error empty asks")
        return {"output_sha256": done["output_sha256"]}

    def _save_records(self) -> None:
        """Write --json anew, whole: a reader never sees half of it. Raises OutputError."""
        if self.options.json is None:
            return
        start = perf_counter()
        try:
            _save(self.options.json, self.records)
        finally:
            end = perf_counter()
            self.save_at = end + max(SAVE_EVERY, 20 * (end - start))  # however long it gets: a twentieth of the time

    def _summarise(self, cases: list[Case], code: int) -> None:
        """Write OUTPUTS/summary.json, unless a case of that name has its sidecar there."""
        path = self.options.outputs / "summary.json"
        if not self.options.sidecar or any(record_file(case.labels) == path for case in cases):
            return
        if why := in_the_way(path, is_summary):
            say_warning(f"the summary of this run is not written: {shown(path)} {why}")
            return
        counts = {name: sum(one["status"] == name for one in self.records) for name in ("done", "kept", "failed")}
        failed = [{"case": one["case"], "error": one["error"]} for one in self.records if one["status"] == "failed"]
        odd = [{"case": one["case"], "warnings": one["warnings"]} for one in self.records if one["warnings"]]
        summary = {
            "program": __version__,
            "started": self.started,
            "ended": _now(),
            "exit_code": code,
            "cases": counts | {"not_begun": len(cases) - len(self.records)},
            "failed": failed,
            "left_out": [{"file": shown(one.name), "reason": one.reason} for one in self.left_out],
            "warnings": odd,
            "weights": sidecar.weights_digests(self.cards),
            **self.taken,
        }
        _save(path, summary)


class _Bars(AbstractContextManager["_Bars"]):
    """A bar per network on a terminal, a step per window; nothing elsewhere."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None

    def show(self, message: dict[str, Any]) -> None:
        """Take a message of the worker's."""
        if not sys.stderr.isatty():
            return
        if "network" in message:
            from tqdm import tqdm

            self._close()
            title = f"{self.title} {message['network']}"
            quiet = type("Bar", (tqdm,), {"monitor_interval": 0})  # no thread: the supervisor may have to fork again
            self.bar = quiet(total=message["most"], desc=title, unit="window", leave=False)
        elif "window" in message:
            self.bar.update()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __exit__(self, *_: object) -> None:
        self._close()


def _save(path: Path, document: Any) -> None:
    """Write JSON whole or not at all. Raises OutputError."""
    try:
        write_json(path, document)
    except OSError as error:
        raise OutputError(f"{shown(path)} cannot be written: {error.strerror}") from error


def _moved(case: Case) -> str:
    return f"the {shown(case.labels.name)} that was there is not known to be this program's: it now ends in .before"


def _file(path: Path) -> set[tuple[Identity, str]]:
    """A file and its name without regard to case. By the file alone, links between equal label maps would count."""
    return {(identity, path.name.casefold()) for identity in identities(path)}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _make_writable(folder: Path) -> str | None:
    """Create the folder if need be and prove that a file can be made in it. Raises OutputError.

    Returns what the file system will not promise about files there, as `write_atomically` does.
    """
    probe = folder / f".viscera.{os.getpid()}.probe"
    try:
        with suppress(FileExistsError):  # a file, or a link to nothing
            folder.mkdir(parents=True, exist_ok=True)
        if not os.path.isdir(folder):
            raise OutputError(f"{shown(folder)} is there already and is not a folder")
        remove_parts([probe])
        doubt = write_atomically(probe, b"")
        probe.unlink()
        return doubt
    except OSError as error:
        hint = '; with docker, --user "$(id -u):$(id -g)" runs as you' if isinstance(error, PermissionError) else ""
        raise OutputError(f"{shown(folder)} cannot be written by user {os.getuid()}: {error.strerror}{hint}") from error


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty: a variable that is not set, in a script?")
    return Path(text)


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty: a variable that is not set, in a script?")
    return text


def _step(text: str) -> float:
    step = float(text)
    if not 0 < step <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return step


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return count


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no network is named")
    return names
