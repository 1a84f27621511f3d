"""OUTPUTS/measurements.csv, of every label map of the folder: those of this run, those kept, and those of other runs.

It is made of the records, each of which counts only if a label map is as it says. In a folder of many cases, rows of
those whose files nobody has touched since are copied from the table that is there; a hidden list beside it says which
these are. The table is the same, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from io import BufferedReader
from pathlib import Path

from ..errors import names_are_hidden, shown
from ..formats.atomic import write_atomically, writing
from ..formats.outputs import identities, table_in_the_way
from ..formats.recorded import Recorded, measured, recorded
from ..measurements import FILE_NAME, HEAD, lines, rows
from ..version import __version__
from .console import say_warning

LIST = ".viscera.measurements"
MANY = 1000  # cases: the records of fewer are read within a second, and get no list
Entry = tuple[str, str, int]  # where the record of a case is, state of its files, and bytes of its rows


def write_measurements(outputs: Path) -> None:
    """Raises OutputError."""
    path = outputs / FILE_NAME
    if why := table_in_the_way(path):
        say_warning(f"the measurements are not written: {shown(path)} {why}")
        return
    with writing(shown(path)):
        made = _made(path)
    with suppress(OSError):  # without its list the next table is made of all records
        made.write_list(outputs / LIST)


def _made(path: Path) -> _Made:
    """Write the table, from the beginning if another run has written it meanwhile: that may know cases which were not
    there yet. Raises OSError."""
    while True:
        made = _Made(path)
        with suppress(_OvertakenError):
            write_atomically(path, made.of(_parts(path.parent)))
            return made


class _OvertakenError(Exception):
    pass


def _parts(outputs: Path) -> Iterator[tuple[str, str, bytes]]:
    """Of each case where its record is, the state of its files and its rows."""
    with closing(_Earlier(outputs)) as earlier:  # closed before another takes its place, which Windows asks for
        for one in recorded(outputs):
            if not one.files:  # another file may be large
                continue
            place = one.record.relative_to(outputs).as_posix()
            state = _state(one)  # as it was before they are read
            part = earlier.rows(place, state)
            if part is None:
                part = _rows(one)
            if part is not None:
                yield place, state, part


def _rows(one: Recorded) -> bytes | None:
    """Those of a case by its record; None where that is damaged, or no label map is as it says."""
    try:
        if found := measured(one):
            name, labels = found
            return lines(rows(name, labels or {}))
    except (KeyError, TypeError, ValueError, AttributeError):
        say_warning(f"the record of {shown(one.case)} is damaged: it has no rows in {FILE_NAME}")
    return None


def _state(one: Recorded) -> str:
    """Another one once a file is written again, or another takes its place; empty where one is gone."""
    numbers = []
    try:
        for path in (one.record, *one.files):
            status = os.stat(path)
            numbers += [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    except OSError:
        return ""
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:32]


class _Made:
    """A table while it is written, and what its list says."""

    def __init__(self, path: Path) -> None:
        self.path, self.before = path, identities(path)
        self.entries: list[Entry] = []
        self.digest = hashlib.sha256()

    def of(self, parts: Iterable[tuple[str, str, bytes]]) -> Iterator[bytes]:
        """The bytes of the table. Raises _OvertakenError at their end if another table is there."""
        self.digest.update(HEAD)
        yield HEAD
        for case, state, part in parts:
            self.entries.append((case, state, len(part)))
            self.digest.update(part)
            yield part
        if identities(self.path) != self.before:
            raise _OvertakenError

    def write_list(self, path: Path) -> None:
        """If it is worth it. Raises OSError."""
        if len(self.entries) >= MANY:
            entries = b"".join(json.dumps(one).encode() + b"\n" for one in self.entries)
            self.digest.update(entries)
            write_atomically(path, json.dumps(_head(self.digest.hexdigest())).encode() + b"\n" + entries)


class _Earlier:
    """The rows of the table that is there, as far as its list goes: none if that is of another table or program."""

    def __init__(self, outputs: Path) -> None:
        self._table: BufferedReader | None = None
        self._places: dict[tuple[str, str], tuple[int, int]] = {}  # of a case and a state: where its rows are, bytes
        with suppress(OSError):
            if os.path.isfile(outputs / LIST):
                self._table = open(outputs / FILE_NAME, "rb")  # noqa: SIM115  # closed by `close`
                with suppress(ValueError, RecursionError):  # no list of ours
                    self._look(outputs / LIST, self._table)

    def _look(self, path: Path, table: BufferedReader) -> None:
        head, _, entries = path.read_bytes().partition(b"\n")
        digest = hashlib.file_digest(table, "sha256")
        digest.update(entries)
        if json.loads(head) != _head(digest.hexdigest()):
            return
        place = len(HEAD)
        for case, state, length in map(json.loads, entries.splitlines()):
            self._places[case, state] = place, length
            place += length

    def rows(self, case: str, state: str) -> bytes | None:
        """Those of a case, if its files are in that state still."""
        place = self._places.get((case, state)) if state else None
        if place is None or self._table is None:
            return None
        self._table.seek(place[0])
        return self._table.read(place[1])

    def close(self) -> None:
        if self._table:
            self._table.close()


def _head(digest: str) -> list[str | bool]:
    """Of a list: what the rows depend on beside the files, and the sha256 of the table and of the entries after it."""
    return [__version__, names_are_hidden(), digest]
