"""Writes a label map in the formats that are asked for: all of its files or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import ScanError, UnwrittenError, shown
from ..labels import structures
from ..names import DICOM_FORMATS, PROBABILITIES, format_of
from ..scan import Scan
from . import metaimage, seg_nrrd
from .atomic import discard, writing
from .nifti import file as nifti
from .probabilities import Probabilities
from .written import Description, Written

Writer = Callable[[np.ndarray, Scan, Path, Description], Written]


def _nifti(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    return nifti.write_labels(path, labels, scan)  # it has no place for names


def _metaimage(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    return metaimage.write_labels(path, labels, scan)


def _seg_nrrd(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    return seg_nrrd.write(labels, scan, path, structures(about.names))


def _seg(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    from .dicom import seg  # its libraries take half a second, and no other format needs them

    return seg.write_binary(labels, scan, path, about)


def _labelmap(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    from .dicom import seg

    return seg.write_labelmap(labels, scan, path, about)


def _rtstruct(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    from .dicom import rtstruct

    return rtstruct.write(labels, scan, path, about)


def _report(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    from .dicom import report

    return report.write(labels, scan, path, about)


# By format, of names.FORMATS.
WRITERS: dict[str | None, Writer] = {
    "nii.gz": _nifti,
    "seg.nrrd": _seg_nrrd,
    "mha": _metaimage,
    "seg.dcm": _seg,
    "labelmap.dcm": _labelmap,
    "rtstruct.dcm": _rtstruct,
    "sr.dcm": _report,
}


def check(scan: Scan, name: str, outputs: Sequence[Path]) -> None:
    """Whether labels of a scan can be written in the formats that are asked for, as far as the scan shows.

    name  of the scan
    Raises ScanError: scan and cause in a sentence.
    """
    if not any(format_of(path) in DICOM_FORMATS for path in outputs):
        return
    from .dicom import cannot_write, references

    if why := cannot_write():
        raise ScanError(why)
    try:
        references.check(scan)
    except ScanError as error:
        raise ScanError(f"{shown(name)} {error}") from error


def write(
    labels: np.ndarray,
    scan: Scan,
    outputs: Sequence[Path],
    about: Description,
    probabilities: Probabilities | None = None,
) -> list[Written]:
    """Write labels (z, y, x) uint8 on the grid of a scan to files whose endings say the format, and probabilities to a
    folder, if one of the outputs is that.

    Raises UnwrittenError if one cannot be written; then the others are not there either.
    """
    done: dict[Path, Written] = {}
    try:
        for path in reversed(outputs):  # the label map is the last to be there
            with writing(shown(path.name), UnwrittenError):  # whatever a writer has no memory for
                if probabilities and format_of(path) == PROBABILITIES:
                    done[path] = probabilities.write(path, scan)
                else:
                    done[path] = WRITERS[format_of(path)](labels, scan, path, about)
    except BaseException:
        discard(done)
        raise
    return [done[path] for path in outputs]
