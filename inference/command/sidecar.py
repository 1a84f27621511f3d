"""What is written beside a label map: how it came about, and digests that tell whether it still fits its scan."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..card import Card
from ..errors import ScanError, shown
from ..formats.atomic import write_json
from ..formats.cases import Case
from ..formats.outputs import describes, digest, in_the_way, is_record, read_record
from ..formats.sources import files_of
from ..names import record_file
from ..options import Way

LABELS = 2  # raised whenever the same scan may get other labels than before; 0.1.0 had none in its records


def scan_digest(scan: Path) -> str:
    """sha256 of a scan's file, or of names and digests of all files that it is read from.

    Raises OSError, and ScanError if it cannot be told which these are.
    """
    files = files_of(scan)
    if files == [scan]:
        return digest(scan)
    parts = "".join(f"{file.name}\0{digest(file)}\n" for file in files)
    return hashlib.sha256(os.fsencode(parts)).hexdigest()


def weights_digests(cards: Sequence[Card]) -> dict[str, str]:
    """Network -> sha256 of its card, which holds the sha256 of every model file."""
    return {card.name: card.digest for card in cards}


def write(labels: Path, record: dict[str, Any]) -> str | None:
    """Write the sidecar of `labels`; returns why it was not written, if so: the labels are good without it."""
    path = record_file(labels)
    why = in_the_way(path, is_record)
    if why is None:
        try:
            write_json(path, record)
            return None
        except OSError as error:
            why = f"cannot be written: {error.strerror or error}"
    return f"the record of this case is not beside its labels: {shown(path.name)} {why}"


def _auto_gives(precision: str, asked: str) -> bool:
    """Whether labels of a precision are as good as those that "auto" would make: int8 has to be asked for."""
    return asked == "auto" and precision != "int8"


def fits(case: Case, cards: Sequence[Card], way: Way, precision: str) -> dict[str, Any] | None:
    """The sidecar of a label map that was made from this scan, by these networks and options; None where none was.

    One that another version of this program made fits as well if that gives the same labels (LABELS).

    The label map's own bytes are compared as well: what is damaged does not fit.
    """
    try:
        record = read_record(case.labels)
        same = (
            record is not None
            and record["status"] == "done"
            and record["labels_version"] == LABELS
            and record["weights"] == weights_digests(cards)
            and (record["plan"], record["step"]) == (way.name, way.step)
            and (record["precision"] == precision or _auto_gives(record["precision"], precision))
            and all(isinstance(warning, str) for warning in record["warnings"])  # said again
            and describes(record, case.labels)
            and record["input_sha256"] == scan_digest(case.scan)
        )
    except (OSError, ScanError, ValueError, KeyError, TypeError):
        return None
    return record if same else None
