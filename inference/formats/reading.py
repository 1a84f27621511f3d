"""Opens a scan of any format that we read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CaseError, ScanError, shown
from ..names import METAIMAGE, NRRD
from ..scan import Scan
from .hounsfield import checked
from .nifti import file as nifti
from .nifti.header import PAIR
from .sources import dicom_files
from .written import Written


def read_scan(path: Path, accept: bool = False) -> Scan:
    """The scan, its voxels checked. Raises ScanError and MemoryBudgetError: file and cause in a sentence.

    accept  voxels that cannot be HU are a warning, not an error
    """
    with _named(path), np.errstate(all="ignore"):  # what is no number is found and said by our own checks
        scan: Scan = _reader(path).read(path)
        voxels, odd = checked(scan.voxels, accept)
    return replace(scan, channels=(voxels,), warnings=(*scan.warnings, *odd), checked=True)


def peek(path: Path) -> Scan:
    """The scan without its voxels, which are not read: where they lie. Raises ScanError as `read_scan`."""
    with _named(path):
        scan: Scan = _reader(path).peek(path)
    return scan


def write_empty(path: Path, labels: Path) -> Written:
    """Write a label map without labels on the grid that the header of a scan tells; its voxels are not read.

    Raises CaseError if the header cannot be read, UnwrittenError if the file cannot be written.
    """
    scan = peek(path)
    return nifti.write_labels(labels, np.zeros(scan.grid.shape, np.uint8), scan)


def _reader(path: Path) -> Any:
    """The module that reads a format. Raises ScanError."""
    if os.path.isdir(path) and dicom_files(path):
        from .dicom import read as dicom  # SimpleITK is large, and NIfTI does not need it

        return dicom
    if path.name.lower().endswith((".img", ".img.gz")):
        raise ScanError(PAIR)
    if path.name.lower().endswith(METAIMAGE + NRRD):
        from . import itk

        return itk
    return nifti


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors begin with the file's name."""
    try:
        yield
    except CaseError as error:
        raise type(error)(f"{shown(path.name)} {error}") from error
