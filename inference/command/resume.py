"""The record beside a label map: written, and read to tell whether the labels still fit their scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..card import Card
from ..cards import chosen, digests, with_earlier
from ..errors import ScanError, shown
from ..formats.atomic import write_json
from ..formats.cases import Case
from ..formats.outputs import in_the_way
from ..formats.recorded import describes, is_record, read_record
from ..formats.sources import case_digest
from ..names import DICOM_FORMATS, format_of, record_file
from ..options import Options, Way, as_recorded
from ..record import Record
from ..version import LABELS


def write(labels: Path, record: Record) -> str | None:
    """Write the record of `labels` beside them; returns why it was not written, if so: the labels are good without."""
    path = record_file(labels)
    why = in_the_way(path, is_record)
    if why is None:
        try:
            write_json(path, record.to_json())
            return None
        except OSError as error:
            why = f"cannot be written: {error.strerror or error}"
    return f"the record of this case is not beside its labels: {shown(path.name)} {why}"


def fits(case: Case, cards: Sequence[Card], ways: Sequence[Way], options: Options) -> Record | None:
    """The record of a label map that was made from this scan, by these networks and options; None where none was.

    One that another version of this program made fits as well if that gives the same labels (LABELS).

    The label map's own bytes are compared as well: what is damaged does not fit.
    """
    try:
        record = read_record(record_file(case.labels))
        same = (
            record is not None
            and record["status"] == "done"
            and record["labels_version"] == LABELS
            and record["weights"] == digests(cards)
            and (record["plan"], record.get("step"), record.get("tta", False)) == tuple(as_recorded(ways).values())
            and record.get("chosen") == chosen(cards, options.labels)
            and (record["precision"] == options.precision or _auto_gives(record["precision"], options.precision, cards))
            and _lay_as_asked(record.get("orientation"), options.fix_orientation)
            and (not record.get("resampled") or options.resample)
            and (record.get("anonymous", False) == options.anonymous or not _tells_patient(case))
            and all(isinstance(warning, str) for warning in record["warnings"])  # said again
            and all(describes(record, path) for path in case.outputs)
            and record["input_sha256"] == case_digest(case.sources)
        )
    except (OSError, ScanError, ValueError, KeyError, TypeError):
        return None
    return Record.from_json(record) if record is not None and same else None


def made_from(case: Case) -> str | None:
    """input_sha256 of the label map of an earlier run that lies in the place of a case's own; None if none does."""
    record = read_record(record_file(case.labels))
    if record is None or not any(describes(record, path) for path in case.outputs):
        return None
    digest = record.get("input_sha256")
    return digest if isinstance(digest, str) else None


def _lay_as_asked(orientation: dict[str, Any] | None, fix: bool) -> bool:
    """Whether a scan that lies otherwise than its header says was taken as is now asked for."""
    return orientation is None or (orientation["fix"] != "not asked for") == fix


def _tells_patient(case: Case) -> bool:
    return any(format_of(path) in DICOM_FORMATS for path in case.outputs)


def _auto_gives(precision: str, asked: str, cards: Sequence[Card]) -> bool:
    """Whether labels of a precision are as good as those that "auto" would make: int8 has to be asked for, or what
    the networks were tuned to."""
    return asked == "auto" and (precision != "int8" or all(card.precision == "int8" for card in with_earlier(cards)))
