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
from .atomic import write_atomically
from .outputs import in_the_way

NAME = "Viscera"
DESCRIPTION = {
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

    names  value -> name of the labels that networks give
    Raises OutputError, also if the folder is another dataset, or has label maps with other labels.
    """
    rows = [COLUMNS, *((str(one.value), one.key, one.hex_colour) for one in structures(names))]
    texts = {
        "dataset_description.json": json.dumps(DESCRIPTION, indent=2) + "\n",
        f"{DSEG[1:]}.json": json.dumps(SIDECAR, indent=2) + "\n",
        f"{DSEG[1:]}.tsv": "".join("\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows),
        ".bidsignore": "".join(f"{pattern}\n" for pattern in IGNORED),
    }
    files = [outputs / name for name in texts]
    description, path = files[0], files[2]
    if os.path.lexists(description):  # it is the first to be written
        foreign = description if in_the_way(description, _is_ours) else None
    else:
        foreign = next(filter(os.path.lexists, files), None)
    if foreign:
        raise OutputError(f"{shown(foreign)} is of another data set of BIDS: choose another OUTPUTS")
    try:
        if path.exists() and _labels(path.read_bytes()) != _labels(texts[path.name].encode()):
            raise OutputError(f"{shown(path)} tells of the labels of other networks: choose another OUTPUTS")
        for path, text in zip(files, texts.values(), strict=True):
            write_atomically(path, text.encode())
    except OSError as error:
        raise OutputError(f"{shown(path)} cannot be written: {error.strerror}") from error


def _is_ours(document: Any) -> bool:
    """Whether this is a dataset_description.json of any version of this program."""
    try:
        return any(one["Name"] == NAME for one in document["GeneratedBy"])
    except (TypeError, KeyError):
        return False


def _labels(table: bytes) -> set[tuple[bytes, ...]]:
    """Value and name of the labels in a table."""
    return {tuple(line.split(b"\t")[:2]) for line in table.splitlines()}
