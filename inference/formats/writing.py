"""Writes a label map in the formats that are asked for: all of its files or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..labels import structures
from ..names import PROBABILITIES, format_of
from ..scan import Scan
from . import seg_nrrd
from .atomic import remove
from .nifti import file as nifti
from .probabilities import Probabilities
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


def write(
    labels: np.ndarray,
    scan: Scan,
    outputs: Sequence[Path],
    names: Names,
    probabilities: Probabilities | None = None,
) -> list[Written]:
    """Write labels (z, y, x) uint8 on the grid of a scan to files whose endings say the format, and probabilities to a
    folder, if one of the outputs is that.

    Raises UnwrittenError if one cannot be written; then the others are not there either.
    """
    done: dict[Path, Written] = {}
    try:
        for path in reversed(outputs):  # the label map is the last to be there
            if probabilities and format_of(path) == PROBABILITIES:
                done[path] = probabilities.write(path, scan)
            else:
                done[path] = WRITERS[format_of(path)](labels, scan, path, names)
    except BaseException:
        for path in done:
            remove(path)
        raise
    return [done[path] for path in outputs]
