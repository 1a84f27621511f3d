"""What becomes of each case: kept, refused, or something for a worker, and what is done about the worker's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from ..card import Card
from ..cards import record_fields, smaller_ways
from ..errors import UnwrittenError, names_are_hidden, retold, shown
from ..formats.atomic import discard, remove_parts
from ..formats.cases import Case
from ..formats.outputs import Identity, forget_copy, identities, make_room
from ..names import format_of
from ..options import Way
from ..record import Record
from . import resume
from .console import say_error, say_warning
from .progress import Progress
from .request import Request
from .workers import Lost, Message


@dataclass
class Attempt:
    """A case that is in a worker's hands, or waits for one.

    number   of the case in the run, from 1
    title    how messages call it: its number and its name
    ways     in which it is segmented, one for each network; None once an empty label map was asked for
    start    s of perf_counter at which it began, later by as long as it was paused
    before   where files that were in the place of labels are, if they were renamed; None before that was looked at
    earlier  input_sha256 of labels of an earlier run that were removed; None if there were none
    failed   its record, where an empty label map was asked for
    alone    no other scan may run beside it
    lost     a worker of a cluster was lost with it
    paused   s of perf_counter since which it waits for memory; None if it does not
    """

    number: int
    case: Case
    title: str
    ways: tuple[Way, ...] | None
    start: float
    before: dict[Path, Path] | None = None
    earlier: str | None = None
    failed: Record | None = None
    alone: bool = False
    lost: bool = False
    paused: float | None = None

    def pause(self) -> None:
        """The time of the case stands still until it is resumed."""
        if self.paused is None:
            self.paused = perf_counter()

    def resume(self) -> None:
        if self.paused is not None:
            self.start += perf_counter() - self.paused
            self.paused = None


class Attempts:
    """The cases of a run, from the first look to the record.

    cases       how many the run has
    cards, ways  of the run
    add         takes each record once it is whole, with the number of its case
    said        warnings that hold for the whole run
    """

    def __init__(
        self,
        request: Request,
        cases: int,
        cards: Sequence[Card],
        ways: tuple[Way, ...],
        progress: Progress,
        add: Callable[[int, Record], None],
        said: set[str],
    ) -> None:
        self.request, self.cases, self.cards, self.ways = request, cases, cards, ways
        self.progress, self.add, self.said = progress, add, said
        self.choice: Message = {}  # of the workers: device, engine, precision, why
        self.written: set[tuple[Identity, str]] = set()  # label maps of this run

    def begin(self, number: int, case: Case) -> Attempt | None:
        """A case for a worker; None where there is nothing to do: its labels are kept, or it is refused."""
        title = f"[{number}/{self.cases}] {shown(case.name)}"
        attempt = Attempt(number, case, title, self.ways, perf_counter())
        if reason := case.refused or self._clash(case):
            self._done(attempt, self._failure(case, reason), labels=False)
            return None
        if self.request.resume and (kept := resume.fits(case, self.cards, self.ways, self.request.options)):
            self.written |= _files(case)
            warnings = [retold(warning, case.name, kept.case) for warning in kept.warnings]
            self._end(attempt, replace(kept, case=shown(case.name), status="kept", warnings=warnings), labels=False)
            return None
        self.progress.begins(number, case)
        return attempt

    def make_room(self, attempt: Attempt) -> bool:
        """Take away labels of an earlier run, which must not stay whatever comes of this case. Returns whether that
        could be done, or had been; else the case has failed."""
        if attempt.before is None:
            attempt.earlier = resume.made_from(attempt.case)
            try:
                attempt.before = make_room(attempt.case.outputs)
            except UnwrittenError as error:
                self._done(attempt, self._failure(attempt.case, str(error), unwritten=True))
                return False
        return True

    def loaded(self, choice: Message) -> None:
        """A worker has loaded its networks."""
        if not self.choice:
            self.progress.loaded(choice)
        self.choice = choice

    def lost(self, attempt: Attempt, lost: Lost, beside: bool) -> bool:
        """A worker is lost with its case. Returns whether another worker is to have it.

        One that is killed, as the kernel does where memory is too small, gets another try: alone, if it had others
        `beside` it, and then with less memory, if a network can do with less. Whether a worker of a cluster was lost
        because of its scan is unknown: that gets one more try, in the same way.
        """
        self.progress.clear()
        remove_parts(attempt.case.outputs)  # a worker that lives removes its own
        if attempt.ways is None:
            return self.answered(attempt, Record(error=f"the process {lost}").to_json())
        text = f"the process that segmented it {lost}"
        smaller = smaller_ways(self.cards, attempt.ways)
        if lost.address and not attempt.lost:
            attempt.lost, how = True, "on another worker"
        elif lost.memory and beside and not attempt.alone:
            attempt.alone, how = True, "with no other beside it"
        elif lost.memory and smaller:
            attempt.ways, how = smaller, "with the least memory"
        else:
            again = "; it is the second that was lost with this scan" if attempt.lost else ""
            return self.answered(attempt, self._failure(attempt.case, text + again).to_json())
        say_warning(f"{attempt.title}: {text}; once more {how}")
        return True

    def answered(self, attempt: Attempt, document: Message) -> bool:
        """A worker has done what it was asked for, or has failed, as the JSON of a record says. Returns whether another
        is to have the case."""
        self.progress.clear()
        record, case = Record.from_json(document), attempt.case
        if attempt.failed:
            record = _with_empty_map(attempt, attempt.failed, record)
        else:
            record.seconds["total"] = perf_counter() - attempt.start
            self._say(attempt.title, record)
            if record.status == "failed":
                discard(case.outputs)  # a worker may be killed after it has written them
                if self.request.empty and not record.unwritten:
                    attempt.failed, attempt.ways = record, None
                    return True
        for path, before in (attempt.before or {}).items():
            if forget_copy(before, record.outputs.get(str(format_of(path)), "")):
                _warn(attempt, record, _moved(path))
        if attempt.earlier and record.input_sha256 and attempt.earlier != record.input_sha256:
            _warn(attempt, record, _replaced(case.labels))
        self._end(attempt, record)
        return False

    def _done(self, attempt: Attempt, record: Record, labels: bool = True) -> None:
        """A case has failed before a worker had it; `labels`: the name of its label map is its own."""
        self.progress.clear()
        record.seconds["total"] = perf_counter() - attempt.start
        self._say(attempt.title, record)
        self._end(attempt, record, labels)

    def _failure(self, case: Case, error: str, unwritten: bool = False) -> Record:
        return Record.from_json({
            "case": shown(case.name),
            "error": error,
            "threads": self.request.options.threads,
            **record_fields(self.cards, self.ways, self.request.options),
            "unwritten": unwritten,
            **self.choice,
        })  # fmt: skip

    def _clash(self, case: Case) -> str | None:
        """Why the labels of a case would take the place of those of another case of this run, if so."""
        if _files(case) & self.written:  # a file system may take A.nii.gz and a.nii.gz for one file
            name, labels = shown(case.scan.name), shown(case.labels.name)
            return f"{name} is left out: another case of this run has written {labels} already"
        return None

    def _say(self, title: str, record: Record) -> None:
        for warning in record.warnings:
            if warning not in self.said:
                say_warning(f"{title}: {warning}")
        if record.status == "failed":
            say_error(f"{title}: {record.error}")

    def _end(self, attempt: Attempt, record: Record, labels: bool = True) -> None:
        """A case is done; `labels`: its record is written beside its label map, or in the place of one."""
        case = attempt.case
        record.series = _series(case)
        if labels:
            self.written |= _files(case)
            if self.request.sidecar and (doubt := resume.write(case.labels, record)):
                _warn(attempt, record, doubt)
        self.add(attempt.number, record)
        self.progress.ends(attempt.number, attempt.title, case, record)

    def abandon(self, rest: Iterable[Attempt]) -> None:
        """The run ends before these cases do; no worker has them any more."""
        for attempt in rest:
            if attempt.before is not None:
                discard(attempt.case.outputs)  # written when nobody heard of it any more: labels without a record
            for path in attempt.before or {}:
                say_warning(f"{attempt.title}: {_moved(path)}")


def _warn(attempt: Attempt, record: Record, text: str) -> None:
    record.warnings.append(text)
    say_warning(f"{attempt.title}: {text}")


def _with_empty_map(attempt: Attempt, failed: Record, empty: Record) -> Record:
    """The record of a failed case after an empty label map was asked for; `empty`: how that went."""
    if empty.status == "failed":
        say_error(f"{attempt.title}: no empty label map either: {empty.error}")
    else:
        say_warning(f"{attempt.title}: an empty label map was written, as --on-error empty asks")
        failed.outputs = empty.outputs
    return failed


def _series(case: Case) -> str | None:
    return case.volume.series if case.volume and not names_are_hidden() else None


def _moved(path: Path) -> str:
    return f"the {shown(path.name)} that was there is not known to be this program's: it now ends in .before"


def _replaced(path: Path) -> str:
    return (
        f"the {shown(path.name)} that was there was made from another scan, or from other files of this one: it is gone"
    )


def _files(case: Case) -> set[tuple[Identity, str]]:
    """Label maps that are there, each with its name without regard to case: by the file alone, links between equal
    ones would count."""
    return {(identity, path.name.casefold()) for path in case.outputs for identity in identities(path)}
