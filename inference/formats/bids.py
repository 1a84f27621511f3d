"""What makes OUTPUTS a dataset of derivatives of BIDS, beside the label maps: files that hold for all of them.

BIDS 1.11, bids-specification.readthedocs.io/en/stable/derivatives/imaging.html. It knows no CT: label maps lie in the
folder `anat`, where its validator takes them. What this program writes and BIDS does not know is named in .bidsignore.
Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError, shown
from ..labels import structures
from ..measurements import FILE_NAME
from ..names import DSEG, FOLDERS, FORMATS, PAGE
from ..version import __version__
from .atomic import write_atomically, writing
from .opening import open_regular
from .outputs import in_the_way

NAME = "Viscera"
DESCRIPTION: dict[str, Any] = {
    "Name": "Segmentations by Viscera",
    "BIDSVersion": "1.11.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": NAME, "Version": __version__}],
}
SIDECAR = {"SpatialReference": "orig", "Manual": False}  # of every label map, beside its record
COLUMNS = ("index", "name", "color")
IGNORED = (
    f"sub-*{DSEG}.json",  # the records: BIDS has no sidecar of a case that failed
    *(f"*.{kind}" for kind in FORMATS[1:]),
    *(f"*.{kind}/" for kind in FOLDERS),
    *("*.before", "*.before/", ".viscera.*", "summary*.json", FILE_NAME, PAGE),
)


def describe(outputs: Path, names: Mapping[int, str]) -> None:
    """Write dataset_description.json, .bidsignore, and dseg.json and dseg.tsv, which hold for each label map below.
    Whatever somebody has added to these, such as authors, stays.

    names  value -> name of the labels that networks give
    Raises OutputError, also if the folder is another dataset, or has label maps with other labels.
    """
    rows = [COLUMNS, *((str(one.value), one.key, one.hex_colour) for one in structures(names))]
    table = "".join("\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows).encode()
    files = [
        outputs / name for name in ("dataset_description.json", f"{DSEG[1:]}.json", f"{DSEG[1:]}.tsv", ".bidsignore")
    ]
    description = files[0]
    # Looked for before the description, which a run beside this one writes first.
    foreign = next(filter(os.path.lexists, files[1:]), None)
    if os.path.lexists(description):
        if why := in_the_way(description, _is_ours):
            raise OutputError(f"{shown(description)} {why}: choose another OUTPUTS")
    elif foreign:
        raise OutputError(f"{shown(foreign)} belongs to another BIDS dataset: choose another OUTPUTS")
    there = described, sidecar, labels, ignored = [_content(path) for path in files]
    if labels and _labels(labels) != _labels(table):
        raise OutputError(f"{shown(files[2])} lists other labels than this run writes: choose another OUTPUTS")
    lines = ignored.splitlines()
    lines += [line for line in map(str.encode, IGNORED) if line not in lines]
    contents = (_described(described), sidecar or _json(SIDECAR), labels or table, b"\n".join([*lines, b""]))
    for path, before, content in zip(files, there, contents, strict=True):
        if content != before:
            with writing(shown(path)):
                write_atomically(path, content)


def _content(path: Path) -> bytes:
    """Of a file; none if it is not there. Raises OutputError."""
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        if not os.path.lexists(path):
            return b""
        raise OutputError(f"{shown(path)} {error.strerror}") from error


def _described(text: bytes) -> bytes:
    """A dataset_description.json of ours, or an empty one, as this version gives it."""
    document = json.loads(text) if text else DESCRIPTION
    made = [one | {"Version": __version__} if one["Name"] == NAME else one for one in document["GeneratedBy"]]
    return _json({**document, "GeneratedBy": made})


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _is_ours(document: Any) -> bool:
    """Whether this is a dataset_description.json of any version of this program."""
    try:
        return NAME in [one["Name"] for one in document["GeneratedBy"]]
    except (TypeError, KeyError):
        return False


def _labels(table: bytes) -> set[tuple[bytes, ...]]:
    """Value and name of the labels in a table."""
    return {tuple(line.split(b"\t")[:2]) for line in table.splitlines()}
