"""What is written about a run: the list of --json as it goes, and summary.json at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from ..errors import OutputError, shown
from ..formats.atomic import write_json, writing
from ..formats.candidates import LeftOut
from ..formats.outputs import in_the_way
from ..formats.recorded import is_summary, read_record
from ..record import Record
from ..version import __version__
from .console import say_warning

SAVE_EVERY = 10.0  # s between two writes of --json: each writes all of it, and time must not go with the square


class Records:
    """The file of --json, if there is one: written whole each time, so that a reader never sees half of it."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: dict[int, dict[str, Any]] = {}  # by number of the case
        self._due = 0.0  # by perf_counter

    def add(self, number: int, record: Record) -> None:
        """Enter the record of the case of that number, and write the file if it was not written for some time."""
        if self.path is None:
            return
        self.records[number] = record.to_json()
        if perf_counter() >= self._due:
            with suppress(OutputError):  # tried again, and said where it fails at the end
                self.save()

    def save(self) -> None:
        """Raises OutputError."""
        if self.path is None:
            return
        start = perf_counter()
        try:
            save(self.path, _in_order(self.records))
        finally:
            end = perf_counter()
            self._due = end + max(SAVE_EVERY, 20 * (end - start))  # however long it gets: a twentieth of the time


class Summary:
    """Counts as it goes, so that no record has to be kept."""

    def __init__(self) -> None:
        self.started = now()
        self.counts = {"done": 0, "kept": 0, "failed": 0}
        self.unwritten = 0
        self.failed: dict[int, dict[str, Any]] = {}  # by number of the case
        self.odd: dict[int, dict[str, Any]] = {}

    @property
    def cases(self) -> int:
        return sum(self.counts.values())

    def add(self, number: int, record: Record) -> None:
        self.counts[record.status] += 1
        self.unwritten += record.unwritten
        if record.status == "failed":
            self.failed[number] = {"case": record.case, "error": record.error}
        if record.warnings:
            self.odd[number] = {"case": record.case, "warnings": record.warnings}

    def write(self, path: Path, code: int, cases: int, left_out: Sequence[LeftOut], more: dict[str, Any]) -> None:
        """Write summary.json of a run over so many cases. Raises OutputError."""
        if why := is_a_case(path) or in_the_way(path, is_summary):
            say_warning(f"the summary of this run is not written: {shown(path)} {why}")
            return
        document = {
            "program": __version__,
            "started": self.started,
            "ended": now(),
            "exit_code": code,
            "cases": self.counts | {"not_begun": cases - self.cases},
            "failed": _in_order(self.failed),
            "left_out": [{"file": shown(one.name), "reason": one.reason} for one in left_out],
            "warnings": _in_order(self.odd),
        }
        save(path, document | more)


def is_a_case(path: Path) -> str | None:
    """Why no summary may take the place of `path`, where a case is called like one."""
    return "is the record of the case of that name" if read_record(path) else None


def _in_order(entries: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the cases, whichever was done first."""
    return [entries[number] for number in sorted(entries)]


def save(path: Path, document: Any) -> None:
    """Write JSON whole or not at all. Raises OutputError."""
    with writing(shown(path)):
        write_json(path, document)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
