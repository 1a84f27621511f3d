"""What becomes of each case: kept, refused, or given to a worker, and what is done about the worker's answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from ..card import Card
from ..cards import digests, smaller_way
from ..errors import UnwrittenError, VisceraError, retold, shown
from ..formats.atomic import remove, remove_parts
from ..formats.cases import Case
from ..formats.outputs import Identity, forget_copy, identities, make_room
from ..names import format_of
from ..options import Way
from ..record import Record
from . import resume
from .console import say, say_error, say_warning
from .progress import Bars
from .request import Request
from .workers import Lost, Message, Workers


@dataclass
class _Attempt:
    """A case that is in a worker's hands.

    way     in which it is segmented; None once an empty label map was asked for
    before  where files that were in the place of labels are, if they were renamed
    failed  its record, where an empty label map was asked for
    """

    case: Case
    title: str
    way: Way | None
    before: dict[Path, Path]
    bars: Bars
    start: float = field(default_factory=perf_counter)
    failed: Record | None = None


class Attempts:
    """The cases of a run, from the first look to the record.

    cards, way  of the run
    add         takes each record once it is whole
    said        warnings that hold for the whole run
    """

    def __init__(
        self,
        request: Request,
        workers: Workers,
        cards: Sequence[Card],
        way: Way,
        add: Callable[[Record], None],
        said: set[str],
    ) -> None:
        self.request, self.workers, self.cards, self.way = request, workers, cards, way
        self.add, self.said = add, said
        self.taken: Message = {}  # what the workers loaded: device, engine, precision, why
        self.open: dict[int, _Attempt] = {}  # by worker
        self.written: set[tuple[Identity, str]] = set()  # label maps of this run

    def begin(self, case: Case, title: str) -> None:
        """Keep what is there, refuse the case, or give it to a worker."""
        start = perf_counter()
        if taken := case.refused or self._taken_name(case):
            self._done(case, title, start, self._failure(case, taken), labels=False)
            return
        options = self.request.options
        if self.request.resume and (kept := resume.fits(case, self.cards, self.way, options)):
            say(f"{title}: kept, {shown(case.labels.name)} was made from this scan by these networks")
            self.written |= _files(case)
            warnings = [retold(warning, case.name) for warning in kept.warnings]
            self.add(replace(kept, case=shown(case.name), status="kept", warnings=warnings))
            return
        number = self._worker()
        try:
            before = make_room(case.outputs)  # whatever comes of this case: no labels of an earlier run stay
        except UnwrittenError as error:
            self._done(case, title, start, self._failure(case, str(error), unwritten=True))
            return
        self.open[number] = _Attempt(case, title, self.way, before, Bars(title), start)
        self.workers.send(number, case, self.way)

    def _worker(self) -> int:
        """The number of a free worker that has loaded its networks. Raises VisceraError."""
        number = self.workers.free()
        assert number is not None
        if not self.workers.is_there(number):
            self.workers.start(number)
        while self.workers.owes(number):  # its first message
            self.heed(*self.workers.receive())
        return number

    def heed(self, number: int, message: Message | Lost) -> None:
        """Act on what a worker says. Raises VisceraError if it cannot load its networks."""
        attempt = self.open.get(number)
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
        remove_parts(attempt.case.outputs)  # a worker that lives removes its own
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
        self.open = {number: one for number, one in self.open.items() if one is not attempt}
        try:
            number = self._worker()
        except VisceraError:
            self.open[-1] = attempt  # in nobody's hands any more
            raise
        self.open[number] = attempt
        self.workers.send(number, attempt.case, attempt.way)

    def _answered(self, number: int, attempt: _Attempt, record: Record) -> None:
        """A worker has done what it was asked for, or has failed."""
        case, title = attempt.case, attempt.title
        if attempt.failed:
            if record.status == "failed":
                say_error(f"{title}: no empty label map either: {record.error}")
            else:
                say_warning(f"{title}: an empty label map was written, as --on-error empty asks")
                attempt.failed.outputs = record.outputs
            record = attempt.failed
        else:
            record.seconds["total"] = perf_counter() - attempt.start
            self._say(case, title, record)
            if record.status == "failed":
                for path in case.outputs:
                    with suppress(OSError):  # a worker may be killed after it has written them
                        remove(path)
                if self.request.empty and not record.unwritten:
                    attempt.failed, attempt.way = record, None
                    self._again(attempt)
                    return
        del self.open[number]
        for path, before in attempt.before.items():
            if forget_copy(before, record.outputs.get(str(format_of(path)), "")):
                record.warnings.append(_moved(path))
                say_warning(f"{title}: {_moved(path)}")
        self._write(case, title, record)

    def _done(self, case: Case, title: str, start: float, record: Record, labels: bool = True) -> None:
        """A case has failed before a worker had it; `labels`: the name of its label map is its own."""
        record.seconds["total"] = perf_counter() - start
        self._say(case, title, record)
        if labels:
            self._write(case, title, record)
        else:
            self.add(record)

    def _failure(self, case: Case, error: str, unwritten: bool = False) -> Record:
        return Record.from_json({
            "case": shown(case.name),
            "error": error,
            "weights": digests(self.cards),
            "threads": self.request.options.threads,
            "plan": self.way.name,
            "step": self.way.step,
            "tta": self.way.tta,
            "unwritten": unwritten,
            **self.taken,
        })  # fmt: skip

    def _taken_name(self, case: Case) -> str | None:
        """Why the labels of a case would take the place of those of another case of this run, if so."""
        if _files(case) & self.written:  # a file system may take A.nii.gz and a.nii.gz for one file
            name, labels = shown(case.scan.name), shown(case.labels.name)
            return f"{name} is left out: another case of this run has written {labels} already"
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
        self.written |= _files(case)
        if self.request.sidecar and (doubt := resume.write(case.labels, record)):
            record.warnings.append(doubt)
            say_warning(f"{title}: {doubt}")
        self.add(record)

    def abandon(self) -> None:
        """The run ends before these cases do."""
        for attempt in self.open.values():
            attempt.bars.close()
            for path in attempt.before:
                say_warning(f"{attempt.title}: {_moved(path)}")


def _moved(path: Path) -> str:
    return f"the {shown(path.name)} that was there is not known to be this program's: it now ends in .before"


def _files(case: Case) -> set[tuple[Identity, str]]:
    """Label maps that are there, each with its name without regard to case: by the file alone, links between equal
    ones would count."""
    return {(identity, path.name.casefold()) for path in case.outputs for identity in identities(path)}
