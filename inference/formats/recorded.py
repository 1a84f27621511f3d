"""What this program wrote, known by its content: a record by its fields, a label map by the sha256 in the record beside
it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import names_are_hidden, shown
from ..names import ANAT, DSEG, FORMATS, format_of, labels_file, record_file
from .opening import open_regular

HEAD_BYTES = 256  # that tell a table
MOST_JSON = 256 << 20  # bytes: 50,000 records have 140 MB


def is_record(document: Any) -> bool:
    """Whether this is the record of one case, of any version of this program."""
    return isinstance(document, dict) and {"case", "status", "program"} <= document.keys()


def are_records(document: Any) -> bool:
    """Whether this is a list of records, as --json writes it."""
    return isinstance(document, list) and all(map(is_record, document))


def is_summary(document: Any) -> bool:
    """Whether this is a summary.json of any version of this program."""
    return isinstance(document, dict) and {"program", "started", "exit_code", "cases"} <= document.keys()


@dataclass(frozen=True)
class Recorded:
    """A JSON file where records are, so perhaps a record.

    case    by the name of the file
    record  the file
    files   label maps of that name beside it
    """

    case: str
    record: Path
    files: list[Path]

    def beside(self, kind: str) -> Path:
        """The file of one of FORMATS, or one of FOLDERS."""
        return labels_file(self.record.parent, self.record.name.removesuffix(".json"), kind)


def recorded(outputs: Path) -> Iterator[Recorded]:
    """What may be records in OUTPUTS and in its folders of BIDS, in the order of their names.

    Raises OSError if a folder cannot be listed.
    """
    for folder in label_folders(outputs):
        entries = set(os.listdir(folder))
        for entry in sorted(entries):
            stem = entry.removesuffix(".json")
            if stem != entry:
                case = stem if folder == outputs else stem.removesuffix(DSEG)
                files = [folder / name for kind in FORMATS if (name := f"{stem}.{kind}") in entries]
                yield Recorded(case, folder / entry, files)


def measured(one: Recorded) -> tuple[Any, Any] | None:
    """Case, as it may be shown, and what was measured, if one of its label maps is as its record says."""
    record = read_record(one.record)
    if record and record["status"] == "done" and any(describes(record, path) for path in one.files):
        return shown(one.case) if names_are_hidden() else record["case"], record.get("labels")
    return None


def label_folders(outputs: Path) -> list[Path]:
    """Where label maps of OUTPUTS lie, in whatever layout they were written."""
    return [outputs, *sorted([*outputs.glob(f"sub-*/{ANAT}"), *outputs.glob(f"sub-*/ses-*/{ANAT}")])]


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a file; None where there is none of ours."""
    try:
        record: dict[str, Any] = read_json(path)
    except (OSError, ValueError, RecursionError):
        return None
    return record if is_record(record) else None


def wrote(labels: Path) -> bool:
    """Whether a label map is just as this program wrote it: its sha256 is in the record beside it."""
    record = read_record(record_file(labels))
    return record is not None and describes(record, labels)


def describes(record: dict[str, Any], labels: Path) -> bool:
    """Whether a record is that of a label map as it is."""
    outputs = record.get("outputs", {"nii.gz": record.get("output_sha256")})  # the latter before 0.2
    wanted = outputs.get(format_of(labels)) if isinstance(outputs, dict) else None
    if not isinstance(wanted, str):
        return False
    try:
        return wanted == digest(labels)
    except OSError:
        return False


def digest(path: Path) -> str:
    """sha256 of a regular file, or of the names and digests of those in a folder. Raises OSError."""
    if os.path.isdir(path):
        lines = [b"%b  %b\n" % (_sha256(path / name).encode(), os.fsencode(name)) for name in sorted(os.listdir(path))]
        return hashlib.sha256(b"".join(lines)).hexdigest()
    return _sha256(path)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Raises OSError, ValueError and RecursionError."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_JSON:
            raise ValueError
        return json.load(file)


def read_head(path: Path) -> bytes:
    """The first bytes of a regular file. Raises OSError."""
    with open_regular(path) as file:
        return file.read(HEAD_BYTES)
