"""The measurements of anybody's label maps, a program: SCANS LABELS [--out FILE].

SCANS is a folder of X_0000.nii.gz and LABELS one of X.nii.gz, or both are single files; both lie on one grid. LABELS of
one scan may also be a folder with a mask per structure, called after it (liver.nii.gz). The table is the
measurements.csv of a run. No network runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .cards import labels_of, read_cards
from .errors import (
    ALL_FAILED,
    SOME_FAILED,
    CaseError,
    OutputError,
    ScanError,
    VisceraError,
    end_tidily,
    hide_names,
    names_are_hidden,
    shown,
)
from .formats.atomic import write_atomically, writing
from .formats.cases import Case, find_cases
from .formats.channels import REFERENCE
from .formats.nifti.file import label_names
from .formats.outputs import in_the_way, table_in_the_way
from .formats.pairs import pairs_of, without_scan
from .formats.pattern import given_pattern
from .formats.reading import elsewhere, read_scan
from .formats.recorded import is_summary, label_folders
from .labels import TABLE, known
from .measurements import FILE_NAME, Row, rows, table
from .names import BIDS, DSEG, LAYOUTS, NIFTI, stem, without_ending
from .options import given_path
from .pack import unpacked
from .quantities import VALUES, quantities
from .scan import Scan, reorient


def measure(
    case: Case, labels: Sequence[Path], names: Mapping[int, str] | None, accept: bool = False
) -> tuple[list[dict[str, dict[str, Any]]], list[str]]:
    """What a record says of the labels in each of the files `labels`, and what was odd about them or the scan.

    names   value -> name; a value that has none is called label_7. None: as the file itself says, else this program's.
            Of several files each is the mask of one structure, after which it is called
    accept  voxels that cannot be HU

    Raises ScanError and MemoryBudgetError: a sentence that names the file.
    """
    scan = read_scan(case.sources[0], accept, abdominal=False)
    odd = [f"{shown(case.scan.name)}: {text}" for text in scan.warnings]
    measured = []
    for path in labels:
        numbers, more = _measured(case, scan, path, names, is_mask=len(labels) > 1)
        measured.append(numbers)
        odd += more
    return measured, odd


def _measured(
    case: Case, scan: Scan, labels: Path, names: Mapping[int, str] | None, is_mask: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Of one file, as `measure`."""
    given = read_scan(labels, ct=[False], abdominal=False)
    orientation = scan.grid.orientation  # converters may store the same voxels in another order
    if other := elsewhere(scan.grid, given.grid.turned(orientation)):
        raise ScanError(f"{shown(case.scan.name)} and {shown(labels.name)} do not lie on one grid: {other}")
    values = _values(reorient(given.voxels, given.grid.orientation, orientation))
    if values is None:
        raise ScanError(f"{shown(labels.name)} is not a label map: it holds values other than 0, 1, ... 255")
    found = np.flatnonzero(sum(np.bincount(plane.reshape(-1), minlength=VALUES) for plane in values)).tolist()
    if is_mask or names is None:
        names = _own_names(labels, found, is_mask, case.name)
    named = {value: names.get(value, f"label_{value}") for value in found if value}
    empty = is_mask and found == [0]  # of a hundred structures many are not there
    odd = [] if empty else [f"{shown(labels.name)}: {text}" for text in given.warnings]
    measured = quantities(values, scan.grid, named, {0: scan.voxels})
    if is_mask and names_are_hidden():  # only now: a tumour is one by its name
        for one in measured.values():
            one["name"] = one["name"] if known(one["name"]) else shown(one["name"])
    return measured, odd


def _own_names(labels: Path, found: Sequence[int], is_mask: bool, case: str) -> Mapping[int, str]:
    """Value -> name of the values that were found, where nobody says it: by the file's name if it is a mask, as it also
    is if it holds one value and is called as an organ is; else by its header, or as in this program. Raises ScanError.
    """
    structure, several = without_ending(labels.name), len(set(found) - {0}) > 1
    if is_mask and several:
        raise ScanError(f"{shown(labels.name)} is not the mask of one structure: it holds several values")
    if is_mask or (known(structure) and not several and structure != case):
        return dict.fromkeys(found, structure)
    table = label_names(labels) if labels.name.lower().endswith(NIFTI) else {}
    return table or {one.value: one.key for one in TABLE}


def _values(voxels: np.ndarray) -> np.ndarray | None:
    """A label map as uint8; None where it is none."""
    values = np.empty(voxels.shape, np.uint8)
    for plane, into in zip(voxels, values, strict=True):
        if plane.min() < 0 or plane.max() >= VALUES:
            return None
        into[:] = plane
        if (into != plane).any():
            return None
    return values


def _replaced(out: Path) -> str | None:
    """Why a table would not stay where it is to be written; None if it would."""
    summary = out.with_name("summary.json")
    if out.name != FILE_NAME or not summary.exists() or in_the_way(summary, is_summary):
        return None
    return "is where a run of the command writes its own table, and the next run would replace this one"


def _names(file: Path) -> dict[int, str]:
    """Raises argparse.ArgumentTypeError."""
    try:
        document = json.loads(file.read_bytes())
        names = _of_dataset(document) or {int(value): name for value, name in document.items()}
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{shown(file)} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, RecursionError):
        names = {}
    if not names or not all(isinstance(name, str) and 0 <= value < VALUES for value, name in names.items()):
        raise argparse.ArgumentTypeError(f'{shown(file)} is not a table of names such as {{"1": "liver"}}')
    return names


def _of_dataset(document: Any) -> dict[int, str]:
    """Value -> name by a dataset.json of nnU-Net; empty if it is none. Of regions a label map holds the values of
    regions_class_order. Raises what a document of another kind raises: ValueError, TypeError, AttributeError."""
    labels = document.get("labels")
    if not isinstance(labels, dict):
        return {}
    if all(name.isdecimal() for name in labels):  # as in version 1
        return {int(value): name for value, name in labels.items() if int(value)}
    named = {name: value for name, value in labels.items() if value != 0 and name != "ignore"}
    values = document.get("regions_class_order") or named.values()
    return {int(value): name for value, name in zip(values, named, strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.measure", description=(__doc__ or "").partition("\n\n")[2]
    )
    add, names = parser.add_argument, parser.add_mutually_exclusive_group()
    add(
        "scans",
        type=given_path,
        metavar="SCANS",
        help="a folder of X_0000.nii.gz, one scan, or the folder of one series",
    )
    add(
        "labels",
        type=given_path,
        metavar="LABELS",
        help="a folder of X.nii.gz, or the label map or masks of one scan",
    )
    add(
        "--scans",
        dest="pattern",
        type=given_pattern,
        metavar="PATTERN",
        help="scans in subfolders of SCANS: which, such as '*/ct.nii.gz'",
    )
    add("--out", type=given_path, metavar="FILE", help="file for the table (default: standard output)")
    names.add_argument(
        "--names",
        type=lambda text: _names(given_path(text)),
        metavar="FILE",
        help='names of the labels: JSON such as {"1": "liver"}, or a dataset.json of nnU-Net (default: as the label map'
        " says itself, else those of this program)",
    )
    names.add_argument("--weights", type=given_path, metavar="DIR", help="networks whose labels these are")
    add("--accept-intensities", action="store_true", help="measure scans that cannot be CT in HU, with a warning")
    add("--hash-names", action="store_true", help="write file names as hashes, in the table as well")
    given, hidden = parser.parse_args(), names_are_hidden()
    of_bids = len(label_folders(given.labels)) > 1 or (stem(given.labels.name) or "").endswith(DSEG)
    layout = BIDS if of_bids else LAYOUTS[0]
    hide_names(given.hash_names and layout)
    try:
        return _run(given)
    except VisceraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        hide_names(hidden)


def _run(given: argparse.Namespace) -> int:
    """Raises VisceraError."""
    names = given.names
    if given.weights:
        with unpacked(given.weights) as weights:
            names = labels_of(read_cards(weights, None), None)
    if given.out and (why := table_in_the_way(given.out) or _replaced(given.out)):
        raise OutputError(f"{shown(given.out)} {why}: choose another file for --out")
    found = find_cases(given.scans, given.labels, pattern=given.pattern)
    pairs = pairs_of(found, given.scans, given.labels)
    lost = without_scan(pairs, given.scans, given.labels)
    for warning in (*found.warnings, *(f"{shown(name)} is left out: there is no scan of this name" for name in lost)):
        if REFERENCE not in warning:  # they are what is measured
            print(f"warning: {warning}", file=sys.stderr)
    measured: list[list[Row]] = []
    for number, (case, labels) in enumerate(pairs, 1):
        title = f"[{number}/{len(pairs)}] {shown(case.name)}"
        try:
            if case.refused:
                raise ScanError(case.refused)
            if not labels:
                raise ScanError(f"there is no label map {shown(case.labels.name)} in {shown(given.labels)}")
            numbers, odd = measure(case, labels, names, given.accept_intensities)
        except (CaseError, MemoryError) as error:
            why = str(error) if isinstance(error, CaseError) else "not enough memory for this scan"
            print(f"error: {title}: {why}", file=sys.stderr)
            continue
        for text in odd:
            print(f"warning: {title}: {text}", file=sys.stderr)
        measured.append([row for one in numbers for row in rows(shown(case.name), one)])
    _write(given.out, b"".join(table(measured)))
    if not measured:
        return ALL_FAILED
    left_out = lost or any(one.is_scan for one in found.left_out)
    return SOME_FAILED if left_out or len(measured) < len(pairs) else 0


def _write(path: Path | None, content: bytes) -> None:
    """Raises OutputError."""
    with writing(shown(path) if path else "the table"):
        if path:
            write_atomically(path, content)
        else:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    end_tidily()
    sys.exit(main())
