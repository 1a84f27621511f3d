"""Writes a label map in the formats that are asked for: all of its files or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..labels import structures
from ..names import format_of
from ..scan import Scan
from . import seg_nrrd
from .nifti import file as nifti
from .written import Written

Names = Mapping[int, str]  # value in the label map -> name, background left out


def _nifti(labels: np.ndarray, scan: Scan, path: Path, names: Names) -> Written:
    return nifti.write_labels(path, labels, scan)  # it has no place for names


def _seg_nrrd(labels: np.ndarray, scan: Scan, path: Path, names: Names) -> Written:
    return seg_nrrd.write(labels, scan, path, structures(names))


# By format, of names.FORMATS.
WRITERS: dict[str | None, Callable[[np.ndarray, Scan, Path, Names], Written]] = {
    "nii.gz": _nifti,
    "seg.nrrd": _seg_nrrd,
}


def write(labels: np.ndarray, scan: Scan, outputs: Sequence[Path], names: Names) -> list[Written]:
    """Write labels (z, y, x) uint8 on the grid of a scan to files whose endings say the format.

    Raises UnwrittenError if one cannot be written; then the others are not there either.
    """
    done: list[Written] = []
    try:
        for path in outputs:
            done.append(WRITERS[format_of(path)](labels, scan, path, names))
    except BaseException:
        for path, _ in zip(outputs, done, strict=False):
            path.unlink(missing_ok=True)
        raise
    return done
