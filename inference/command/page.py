"""OUTPUTS/index.html, made from the records of a folder: those of this run, those kept, and those of other runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import names_are_hidden, retold, shown
from ..formats.atomic import write_atomically, writing
from ..formats.outputs import identities, page_in_the_way
from ..formats.recorded import Recorded, describes, read_record, recorded
from ..names import PAGE, PREVIEW, THUMBNAIL
from ..preview.page import HEAD, Row, html, row
from ..record import TWICE
from .console import say_warning

LONGEST_RECORD = 4 << 20  # bytes; a longer JSON is something else's


def write(outputs: Path, wanted: bool) -> None:
    """Write the page, if it is wanted or one of an earlier run is there. Raises OutputError."""
    path = outputs / PAGE
    if why := page_in_the_way(path, HEAD):
        if wanted:
            say_warning(f"the page of this run is not written: {shown(path)} {why}")
    elif wanted or os.path.lexists(path):
        with writing(shown(path)):
            before, rows = identities(path), list(_rows(outputs))
            while (now := identities(path)) != before:  # another run wrote it, and may know cases that were not there
                before, rows = now, list(_rows(outputs))
            write_atomically(path, html(rows))


def _rows(outputs: Path) -> Iterator[Row]:
    """Of failed cases, and of those whose label map is as its record says, in the order of their names."""
    for one in recorded(outputs):
        try:  # whatever else has these keys is somebody's JSON, and must not cost the page
            made = _row(outputs, one)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
            say_warning(f"the record of {shown(one.case)} is damaged: it has no row in {PAGE}")
        else:
            if made:
                yield made


def _row(outputs: Path, one: Recorded) -> Row | None:
    """None where there is no record, or no label map that it describes. Raises as `row`, and OSError."""
    if os.path.getsize(one.record) > LONGEST_RECORD:
        return None
    record, case = read_record(one.record), one.case
    if record is None:
        return None
    if record["status"] != "failed" and not any(describes(record, path) for path in one.files):
        return None
    if not isinstance(record["case"], str):
        raise TypeError("the name of a case is text")
    name = shown(case) if names_are_hidden() else record["case"]
    folder = one.beside(PREVIEW)
    thumbnail = address = None
    if PREVIEW in record.get("outputs", {}):
        with suppress(OSError):
            thumbnail = (folder / THUMBNAIL).read_bytes()
    if thumbnail and name == shown(case) and not names_are_hidden():
        address = quote(os.fsencode(folder.relative_to(outputs).as_posix())) + "/"
    return row(name, _retold(record, case), thumbnail, address)


def _retold(record: dict[str, Any], case: str) -> dict[str, Any]:
    """The record with the sentences that may name files, which an earlier run may have shown."""
    error, told_of = record.get("error"), record["case"]
    return record | {
        "error": error and retold(error, case, told_of),
        "warnings": [
            warning if warning.startswith(TWICE) else retold(warning, case, told_of)  # it names organs, no file
            for warning in record.get("warnings", [])
        ],
    }
