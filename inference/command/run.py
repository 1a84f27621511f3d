"""One run of the command: its cases, driven by what the workers say, and what is to be said about each."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import machine
from ..card import Card, digests, read_cards, smaller_way, way_of
from ..errors import OutputError, UnwrittenError, VisceraError, retold, shown
from ..formats.atomic import remove_parts
from ..formats.cases import Case, Found, find_cases
from ..formats.outputs import (
    Identity,
    check_labels,
    check_records,
    forget_copy,
    identities,
    input_files,
    make_room,
    make_writable,
)
from ..names import record_file
from ..options import Options, Way
from ..record import Record
from . import resume
from .console import say, say_error, say_warning
from .progress import Bars
from .stopping import Stopped, Stopping
from .summary import Records, Summary
from .workers import Lost, Message, Workers

SOME_FAILED, ALL_FAILED = 8, 4
WORKERS = 1


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    names       of cases: only these
    resume      keep labels that fit
    empty       a failed case gets an empty label map
    timeout     s without progress after which a case fails
    json        file of all records
    sidecar     write records beside the labels, and summary.json
    hash_names  in logs and records
    """

    inputs: Path
    outputs: Path
    options: Options
    names: tuple[str, ...] = ()
    resume: bool = False
    empty: bool = False
    timeout: float = 600.0
    json: Path | None = None
    sidecar: bool = True
    hash_names: bool = False


@dataclass
class _Attempt:
    """A case that is in a worker's hands.

    way     in which it is segmented; None once an empty label map was asked for
    before  where an earlier label map is, if it was renamed
    failed  its record, where an empty label map was asked for
    """

    case: Case
    title: str
    way: Way | None
    before: Path | None
    bars: Bars
    start: float = field(default_factory=perf_counter)
    failed: Record | None = None


class Run:
    """The cases of a request, one after another."""

    def __init__(self, request: Request, stopping: Stopping) -> None:
        threads = request.options.threads or machine.usable_cpus()
        self.request = replace(request, options=replace(request.options, threads=threads))
        self.stopping = stopping
        self.workers = Workers(self.request.options, WORKERS, request.timeout, stopping.check)
        self.found = Found([], [], [])
        self.cards: list[Card] = []
        self.taken: Message = {}  # what the workers loaded: device, engine, precision, why
        self.attempts: dict[int, _Attempt] = {}  # by worker
        self.written: set[tuple[Identity, str]] = set()  # label maps of this run
        self.said: set[str] = set()  # warnings of records that hold for the whole run
        self.records = Records(request.json)
        self.summary = Summary()

    def __call__(self) -> int:
        """Segment every case; a failed one does not stop the others. Returns the exit code.

        Raises VisceraError, and Stopped, only before the first of them is begun.
        """
        own = self._prepare()
        ending = None
        try:
            for number, case in enumerate(self.found.cases, 1):
                while self.workers.free() is None:
                    self._heed(*self.workers.receive())
                self.stopping.check()
                self._begin(case, f"[{number}/{len(self.found.cases)}] {shown(case.name)}")
            while self.attempts:
                self._heed(*self.workers.receive())
            code = self._exit_code()
            self.stopping.over()
        except Stopped as stopped:
            code, ending = stopped.exit_code, f"stopped by {stopped.name}; finished cases are kept"
        except VisceraError as error:  # the networks cannot be loaded, or not again
            code, ending = error.exit_code, str(error)
            self.stopping.over()
        self.workers.stop()
        if ending:
            for attempt in self.attempts.values():
                attempt.bars.close()
                if attempt.before:
                    say_warning(f"{attempt.title}: {_moved(attempt.case)}")
            with suppress(OSError):
                remove_parts(own)
        code = self._finish(code)
        if ending:  # said last: a stream that nobody reads may block
            say_error(ending)
        return code

    def _prepare(self) -> list[Path]:
        """Find the cases, look that nothing is written over, make the folders; returns what may be written."""
        request = self.request
        self.found = find_cases(request.inputs, request.outputs, request.names)
        for warning in self.found.warnings:
            say_warning(warning)
        self.cards = read_cards(request.options.weights, request.options.networks)
        self.way = way_of(self.cards, request.options.plan, request.options.step)
        inputs = input_files(request.inputs, request.options.weights)
        for case in self.found.cases:
            check_labels(case.labels, inputs)
        self._make_writable(request.outputs)
        own = [path for case in self.found.cases for path in (case.labels, record_file(case.labels))]
        own.append(request.outputs / "summary.json")
        remove_parts(own)
        if request.json:
            self._make_writable(request.json.parent)
            check_records(request.json, own, inputs)
            remove_parts([request.json])
            self.records.save()
        return own

    def _make_writable(self, folder: Path) -> None:
        doubt = make_writable(folder)
        if doubt and doubt not in self.said:
            say_warning(doubt)
            self.said.add(doubt)

    # --- one case

    def _begin(self, case: Case, title: str) -> None:
        """Keep what is there, refuse the case, or give it to a worker."""
        start = perf_counter()
        if taken := self._taken_name(case):
            self._done(case, title, start, self._failure(case, taken), labels=False)
            return
        options = self.request.options
        if self.request.resume and (kept := resume.fits(case, self.cards, self.way, options.precision)):
            say(f"{title}: kept, {shown(case.labels.name)} was made from this scan by these networks")
            self.written |= _file(case.labels)
            warnings = [retold(warning, case.name) for warning in kept.warnings]
            self._add(replace(kept, case=shown(case.name), status="kept", warnings=warnings))
            return
        number = self._worker()
        try:
            before = make_room(case.labels)  # whatever comes of this case: no labels of an earlier run stay
        except UnwrittenError as error:
            self._done(case, title, start, self._failure(case, str(error), unwritten=True))
            return
        self.attempts[number] = _Attempt(case, title, self.way, before, Bars(title), start)
        self.workers.send(number, case, self.way)

    def _worker(self) -> int:
        """The number of a free worker that has loaded its networks. Raises VisceraError."""
        number = self.workers.free()
        assert number is not None
        if not self.workers.is_there(number):
            self.workers.start(number)
        while self.workers.owes(number):  # its first message
            self._heed(*self.workers.receive())
        return number

    def _heed(self, number: int, message: Message | Lost) -> None:
        """Act on what a worker says. Raises VisceraError if it cannot load its networks."""
        attempt = self.attempts.get(number)
        if attempt is None:  # it has just been started
            self._loaded(message)
        elif isinstance(message, Lost):
            attempt.bars.close()
            self._lost(number, attempt, message)
        elif "record" in message:
            attempt.bars.close()
            self._answered(number, attempt, Record.from_json(message["record"]))
        else:
            attempt.bars.show(message)

    def _loaded(self, message: Message | Lost) -> None:
        if isinstance(message, Lost):
            raise VisceraError(f"the networks could not be loaded: the worker {message}")
        if "fatal" in message:
            code, text = message["fatal"]
            error = VisceraError(text)
            error.exit_code = code
            raise error
        if not self.taken:
            say(", ".join(message["ready"]["why"]) or "device, engine and precision as asked for")
        self.taken = message["ready"]

    def _lost(self, number: int, attempt: _Attempt, lost: Lost) -> None:
        """A worker that is killed, as the kernel does where memory is too small, gets a second try with less of it, if
        a network can do with less."""
        if attempt.way is None:
            self._answered(number, attempt, Record(error=f"the process {lost}"))
        elif lost.memory and (smaller := smaller_way(self.cards, attempt.way)):
            say_warning(f"{attempt.title}: the process that segmented it {lost}; once more with the least memory")
            attempt.way = smaller
            self._again(attempt)
        else:
            self._answered(number, attempt, self._failure(attempt.case, f"the process that segmented it {lost}"))

    def _again(self, attempt: _Attempt) -> None:
        """Give a case back to a worker."""
        self.attempts = {number: one for number, one in self.attempts.items() if one is not attempt}
        try:
            number = self._worker()
        except VisceraError:
            self.attempts[-1] = attempt  # in nobody's hands any more
            raise
        self.attempts[number] = attempt
        self.workers.send(number, attempt.case, attempt.way)

    def _answered(self, number: int, attempt: _Attempt, record: Record) -> None:
        """A worker has done what it was asked for, or has failed."""
        case, title = attempt.case, attempt.title
        if attempt.failed:
            if record.status == "failed":
                say_error(f"{title}: no empty label map either: {record.error}")
            else:
                say_warning(f"{title}: an empty label map was written, as --on-error empty asks")
                attempt.failed.output_sha256 = record.output_sha256
            record = attempt.failed
        else:
            record.seconds["total"] = perf_counter() - attempt.start
            self._say(case, title, record)
            if record.status == "failed":
                with suppress(OSError):  # a worker may be killed after it has written them
                    case.labels.unlink()
                if self.request.empty and not record.unwritten:
                    attempt.failed, attempt.way = record, None
                    self._again(attempt)
                    return
        del self.attempts[number]
        if forget_copy(attempt.before, record.output_sha256 or ""):
            record.warnings.append(_moved(case))
            say_warning(f"{title}: {_moved(case)}")
        self._write(case, title, record)

    def _done(self, case: Case, title: str, start: float, record: Record, labels: bool = True) -> None:
        """A case has failed before a worker had it; `labels`: the name of its label map is its own."""
        record.seconds["total"] = perf_counter() - start
        self._say(case, title, record)
        if labels:
            self._write(case, title, record)
        else:
            self._add(record)

    def _failure(self, case: Case, error: str, unwritten: bool = False) -> Record:
        return Record.from_json({
            "case": shown(case.name),
            "error": error,
            "weights": digests(self.cards),
            "threads": self.request.options.threads,
            "plan": self.way.name,
            "step": self.way.step,
            "unwritten": unwritten,
            **self.taken,
        })  # fmt: skip

    def _taken_name(self, case: Case) -> str | None:
        """Why the labels of a case would take the place of those of another case of this run, if so."""
        name = shown(case.scan.name)
        if case.twin:
            return f"{name} is left out: {shown(case.twin.name)} has the same case name"
        if _file(case.labels) & self.written:  # a file system may take A.nii.gz and a.nii.gz for one file
            return f"{name} is left out: another case of this run has written {shown(case.labels.name)} already"
        return None

    def _say(self, case: Case, title: str, record: Record) -> None:
        for warning in record.warnings:
            if warning not in self.said:
                say_warning(f"{title}: {warning}")
        if record.status == "failed":
            say_error(f"{title}: {record.error}")
        else:
            found = len(record.labels or {})
            say(f"{title}: {record.seconds['total']:.1f} s, {found} labels -> {shown(case.labels)}")

    def _write(self, case: Case, title: str, record: Record) -> None:
        self.written |= _file(case.labels)
        if self.request.sidecar and (doubt := resume.write(case.labels, record)):
            record.warnings.append(doubt)
            say_warning(f"{title}: {doubt}")
        self._add(record)

    def _add(self, record: Record) -> None:
        self.summary.add(record)
        self.records.add(record)

    # --- the end

    def _exit_code(self) -> int:
        """Of a run that came to its end."""
        failed, cases = self.summary.counts["failed"], self.summary.cases
        if failed:
            say_error(f"{failed} of {cases} cases failed")
        if failed == cases:
            return OutputError.exit_code if self.summary.unwritten else ALL_FAILED
        return SOME_FAILED if failed or any(one.is_scan for one in self.found.left_out) else 0

    def _finish(self, code: int) -> int:
        """Write what is written once, at the end; returns the exit code."""
        try:
            self.records.save()
        except OutputError as error:
            say_error(str(error))
            code = code or error.exit_code
        try:
            self._summarise(code)
        except OutputError as error:
            say_error(str(error))
            code = code or error.exit_code
        return code

    def _summarise(self, code: int) -> None:
        """Write OUTPUTS/summary.json, unless a case of that name has its record there. Raises OutputError."""
        path, cases = self.request.outputs / "summary.json", self.found.cases
        if self.request.sidecar and not any(record_file(case.labels) == path for case in cases):
            more: dict[str, Any] = {"weights": digests(self.cards), **self.taken}
            self.summary.write(path, code, len(cases), self.found.left_out, more)


def _moved(case: Case) -> str:
    return f"the {shown(case.labels.name)} that was there is not known to be this program's: it now ends in .before"


def _file(path: Path) -> set[tuple[Identity, str]]:
    """A file and its name without regard to case. By the file alone, links between equal label maps would count."""
    return {(identity, path.name.casefold()) for identity in identities(path)}
