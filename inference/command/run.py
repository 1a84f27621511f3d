"""One run of the command: what comes before its first case and after its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from .. import cgroups, machine
from ..card import Card
from ..cards import chosen, digests, labels_of, left_aside, networks_of
from ..errors import ALL_FAILED, SOME_FAILED, DeviceError, OutputError, VisceraError
from ..formats import bids
from ..formats.atomic import remove_parts
from ..formats.cases import Case, Found, find_cases
from ..formats.dicom import cannot_write
from ..formats.outputs import check_labels, check_records, input_files, make_writable
from ..measurements import FILE_NAME
from ..names import BIDS, DICOM_FORMATS, PAGE, PREVIEW, record_file
from ..options import Options, Way
from ..record import Record
from . import page
from .attempts import Attempts
from .claim import Claim
from .console import say_error, say_warning
from .progress import Progress
from .request import Request
from .room import Room
from .schedule import Schedule
from .schedulers import SLURM, STARTED, Place, check_installed
from .stopping import Stopped, Stopping
from .summary import Records, Summary
from .table import LIST, write_measurements
from .workers import Message, Workers

THREADS = 2  # of a worker on a machine of a cluster, unless --threads is given


class Run:
    """The cases of a request.

    given  its options with the weights as they were named, as other machines see them too
    """

    def __init__(self, request: Request, given: Options, progress: Progress, stopping: Stopping) -> None:
        self.request, self.given, self.progress, self.stopping = request, given, progress, stopping
        self.found = Found([], [], [])
        self.cards: list[Card] = []
        self.ways: tuple[Way, ...] = ()
        self.said: set[str] = set()  # warnings of records that hold for the whole run
        self.claim = Claim(request.outputs)
        self.records = Records(request.json)
        self.summary = Summary()

    def __call__(self) -> int:
        """Segment every case; a failed one does not stop the others. Returns the exit code.

        Raises VisceraError, and Stopped, only before the first of them is begun.
        """
        if self.request.scheduler:
            check_installed(self.request.scheduler)
        elsewhere = self.request.scheduler and self.request.scheduler not in STARTED  # then workers look for themselves
        if _writes_dicom(self.request) and not elsewhere and (why := cannot_write()):
            raise DeviceError(why)  # at once, not after the first scan has been read
        folders = self._find()
        own = self._prepare(folders)
        options, cases = self.request.options, self.found.cases
        count, threads = self._shared_out(len(cases))
        self.request = replace(self.request, options=replace(options, threads=threads))
        self.progress.starts(len(cases), len(self.cards), count)
        attempts = Attempts(self.request, len(cases), self.cards, self.ways, self.progress, self._add, self.said)
        schedule = self._schedule(count, attempts)
        ending = None
        try:
            schedule.run()
            code = self._exit_code()
            self.stopping.over()
        except Stopped as stopped:
            code, ending = stopped.exit_code, f"stopped by {stopped.name}; finished cases are kept"
        except VisceraError as error:  # the networks cannot be loaded, or not again
            code, ending = error.exit_code, str(error)
            self.stopping.over()
        finally:
            schedule.workers.stop()
        self.progress.clear()
        if ending:
            attempts.abandon(schedule.rest())
            with suppress(OSError):
                remove_parts(own)
        code = self._finish(code, attempts.choice)
        if ending:  # said last: a stream that nobody reads may block
            say_error(ending)
        return code

    def _shared_out(self, cases: int) -> tuple[int | None, int | None]:
        """Workers for so many cases, and the threads of each; None where a cluster decides. Raises DeviceError."""
        request, most = self.request, self.request.options.threads
        if request.scheduler and request.scheduler not in STARTED:
            return None, most
        if request.scheduler == SLURM:  # whose processors are not those of this machine
            return min(request.workers or 1, cases), most or THREADS
        found, each = shared_out(request.workers, most, cases)
        left, need = cgroups.tasks_left(), found * machine.TASKS
        if request.workers and found > 1 and left is not None and need > left:
            raise DeviceError(
                f"{found} workers take up to {need} processes and threads, and the control group (pids) leaves {left}: "
                f"--workers {max(left // machine.TASKS, 1)} or fewer, or auto"
            )
        return found, each

    def _schedule(self, workers: int | None, attempts: Attempts) -> Schedule:
        """Whatever gives the cases to workers, none of which is started yet."""
        request, cases, check = self.request, self.found.cases, self.stopping.check
        options, room = request.options, Room(request.options.max_memory)
        if request.scheduler is None:
            local = Workers(options, request.timeout, check)
            gpu_threads = shared_out(1, self.given.threads, len(cases))[1] if request.workers is None else None
            return Schedule(cases, local, workers or 1, attempts, room, gpu_threads)
        from .cluster import Cluster, ClusterSchedule

        place = Place(request.scheduler, workers or 0, options.threads or 1, options.max_memory, request.outputs)
        given = replace(options, weights=self.given.weights)
        return ClusterSchedule(
            cases, Cluster(place, given, request.timeout, check, _writes_dicom(request)), attempts, room
        )

    def _find(self) -> set[Path]:
        """Read the cards and find the cases; returns the folders of scans. Raises VisceraError."""
        request = self.request
        self.cards, self.ways = networks_of(request.options, request.options.weights)
        channels = [channel.name for channel in self.cards[0].channels]
        self.found = find_cases(
            request.inputs,
            request.outputs,
            request.names,
            request.formats,
            channels,
            request.name_by,
            request.layout,
            request.scans,
        )
        folders = {file.parent for case in self.found.cases for file in case.files if not case.volume}
        idle = _idle(request, self.found.cases)
        if request.options.networks is None and request.options.labels is None:
            idle += _unasked(self.cards, request.options.weights)
        if part := request.part:
            # What is left out is one part's to tell, or each would fail for it.
            rest = (self.found.left_out, self.found.warnings) if part.index == 1 else ([], [])
            self.found = Found(part.of(self.found.cases), *rest)
        for warning in (*self.found.warnings, *idle):
            say_warning(warning)
        return folders

    def _prepare(self, folders: set[Path]) -> list[Path]:
        """Look that nothing of these folders is written over, and make those of the outputs; returns what this run
        alone writes. Raises OutputError."""
        request = self.request
        inputs = cache(lambda: input_files(request.inputs, request.options.weights, folders))
        cases = [case for case in self.found.cases if not case.refused]  # others have the names of these, or none
        for case in cases:
            for path in case.outputs:
                check_labels(path, inputs)
        self._make_writable(request.outputs)
        own = [path for case in cases for path in (*case.outputs, record_file(case.labels))]
        shared = [self._summary_file(), *(request.outputs / name for name in (FILE_NAME, LIST, PAGE))]
        if request.layout == BIDS:
            bids.describe(request.outputs, labels_of(self.cards, request.options.labels))
        self._warn(self.claim.take([case.labels.name for case in cases]))
        remove_parts([*own, *shared] if self.claim.alone else own)  # another run may be writing these
        if request.json:
            self._make_writable(request.json.parent)
            check_records(request.json, [*own, *shared], inputs())
            remove_parts([request.json])
            self.records.save()
        return own

    def _make_writable(self, folder: Path) -> None:
        self._warn(make_writable(folder))

    def _warn(self, doubt: str | None) -> None:
        if doubt and doubt not in self.said:
            say_warning(doubt)
            self.said.add(doubt)

    def _add(self, number: int, record: Record) -> None:
        self.summary.add(number, record)
        self.records.add(number, record)

    def _exit_code(self) -> int:
        """Of a run that came to its end."""
        failed, cases = self.summary.counts["failed"], self.summary.cases
        if failed:
            say_error(f"{failed} of {cases} cases failed")
        if failed and failed == cases:
            return OutputError.exit_code if self.summary.unwritten else ALL_FAILED
        return SOME_FAILED if failed or any(one.is_scan for one in self.found.left_out) else 0

    def _finish(self, code: int, choice: Message) -> int:
        """Write what is written once, at the end; returns the exit code."""
        outputs, preview = self.request.outputs, PREVIEW in self.request.formats
        code = _tried(self.records.save, code)
        if self.request.sidecar:
            code = _tried(lambda: self._summarise(code, choice), code)
            if not self.request.part:  # else merge writes these: each part would read all records
                code = _tried(lambda: write_measurements(outputs), code)
                code = _tried(lambda: page.write(outputs, preview), code)
        return code

    def _summarise(self, code: int, choice: Message) -> None:
        """Raises OutputError."""
        more: dict[str, Any] = {"weights": digests(self.cards), **choice}
        if names := chosen(self.cards, self.request.options.labels):
            more["chosen"] = names
        if self.request.part and PREVIEW in self.request.formats:
            more[PREVIEW] = True  # merge makes the page
        self.summary.write(self._summary_file(), code, len(self.found.cases), self.found.left_out, more)

    def _summary_file(self) -> Path:
        part = self.request.part
        return self.request.outputs / (part.summary if part else "summary.json")


def _writes_dicom(request: Request) -> bool:
    return any(one in DICOM_FORMATS for one in request.formats)


def _idle(request: Request, cases: Sequence[Case]) -> list[str]:
    """A sentence for each flag that is of DICOM, and changes nothing here."""
    said = []
    if request.name_by and not any(case.volume for case in cases):
        said.append("--name-by changes no name: none of the cases is DICOM")
    if request.options.anonymous and not _writes_dicom(request):
        said.append("--anonymous changes nothing: none of the formats that are written is DICOM")
    return said


def _unasked(cards: Sequence[Card], weights: Path) -> list[str]:
    """A sentence on networks that do not run because nobody named them, though they lie beside those that do."""
    if not (names := left_aside(cards, weights)):
        return []
    those = ", ".join(card.name for card in cards)
    return [f"networks not run beside {those}: {', '.join(names)} (--networks names those that are to run)"]


def shared_out(workers: int | None, threads: int | None, cases: int) -> tuple[int, int]:
    """Workers of this machine for so many cases, and the threads of each.

    workers  that are asked for; None: one per processor, which wastes least (docs/performance.md)
    threads  of all together; None: as many as there are processors and each worker makes use of
    """
    count = threads or machine.processors()
    found = max(min(workers or count, cases), 1)
    each = max(count // found, 1)
    return found, each if threads else min(each, machine.MOST_THREADS)


def _tried(write: Callable[[], None], code: int) -> int:
    """The exit code after something was written, or could not be."""
    try:
        write()
    except OutputError as error:
        say_error(str(error))
        return code or error.exit_code
    return code
