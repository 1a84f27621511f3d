"""OUTPUTS/index.html, made from the records of a folder: those of this run, those kept, and those of other runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import OutputError, names_are_hidden, retold, shown
from ..formats.atomic import write_atomically
from ..formats.outputs import describes, page_in_the_way, read_record
from ..names import FORMATS, PAGE, PREVIEW, THUMBNAIL, labels_file
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
        try:
            write_atomically(path, html(list(_rows(outputs))))
        except OSError as error:
            raise OutputError(f"{shown(path)} cannot be written: {error.strerror}") from error


def _rows(outputs: Path) -> Iterator[Row]:
    """Of failed cases, and of those whose label map is as its record says, in the order of their names."""
    entries = set(os.listdir(outputs))
    for entry in sorted(entries):
        case = entry.removesuffix(".json")
        if case == entry:
            continue
        try:  # whatever else has these keys is somebody's JSON, and must not cost the page
            one = _row(outputs, entries, case)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
            say_warning(f"the record of {shown(case)} is damaged: it has no row in {PAGE}")
        else:
            if one:
                yield one


def _row(outputs: Path, entries: set[str], case: str) -> Row | None:
    """None where there is no record, or no label map that it describes. Raises as `row`, and OSError."""
    if os.path.getsize(outputs / f"{case}.json") > LONGEST_RECORD:
        return None
    record = read_record(labels_file(outputs, case))
    if record is None:
        return None
    files = [path for kind in FORMATS if (path := labels_file(outputs, case, kind)).name in entries]
    if record["status"] != "failed" and not any(describes(record, path) for path in files):
        return None
    if not isinstance(record["case"], str):
        raise TypeError("the name of a case is text")
    name = shown(case) if names_are_hidden() else record["case"]
    folder = labels_file(outputs, case, PREVIEW)
    thumbnail = address = None
    if PREVIEW in record.get("outputs", {}):
        with suppress(OSError):
            thumbnail = (folder / THUMBNAIL).read_bytes()
    if thumbnail and name == shown(case) and not names_are_hidden():
        address = quote(os.fsencode(folder.name)) + "/"
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
