"""Opens a scan of any format that we read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import CaseError, ScanError, shown
from ..names import METAIMAGE, NRRD, stem
from ..scan import Grid, Scan, check_extent, times
from . import raster
from .archive import ENDING, NO_DICOM, is_archive
from .hounsfield import as_they_are, check_slope, checked
from .nifti import file as nifti
from .nifti.header import PAIR, Header
from .opening import with_name
from .sources import Volume, dicom_files
from .tree import dicom_in
from .writing import check, write
from .written import Description, Written

NEAR = 1e-3  # mm, and of cosines: two affines that differ by less are one


Source = str | Path | Volume
S = TypeVar("S", bound=Source)


def read_scan(
    path: Source | Sequence[Source],
    accept: bool = False,
    ct: Sequence[bool] | None = None,
    resample: bool = False,
    abdominal: bool = True,
) -> Scan:
    """The scan, its voxels checked. Raises ScanError and MemoryBudgetError: file and cause in a sentence.

    path    a file, the folder of a DICOM series, a ZIP with one, or a DICOM volume; of a scan of several channels one
            for each, all on one grid
    accept  voxels that cannot be HU are a warning, not an error
    ct      for each channel whether its voxels are HU, as `Predictor.ct` has it; others are taken as they are.
            Default: all are
    resample  slices of DICOM that are unevenly apart are interpolated on an even grid, not refused
    abdominal  what is no volume of an abdomen, such as a single plane, is refused; `Predictor.abdominal` says whether
            the networks are for these
    """
    paths = [_source(one) for one in given_sources(path)]
    scans = [
        _read(one, accept, hu, resample, abdominal) for one, hu in zip(paths, ct or [True] * len(paths), strict=True)
    ]
    if len(scans) == 1:
        return scans[0]
    for one, scan in zip(paths[1:], scans[1:], strict=True):
        if other := elsewhere(scans[0].grid, scan.grid):
            raise ScanError(f"{shown(paths[0].name)} and {shown(one.name)} do not lie on one grid: {other}")
    warnings = [f"{shown(one.name)}: {text}" for one, scan in zip(paths, scans, strict=True) for text in scan.warnings]
    return replace(scans[0], channels=tuple(scan.voxels for scan in scans), warnings=tuple(warnings))


def given_sources(given: S | Iterable[S]) -> list[S]:
    """Raises ValueError where it is neither a path nor several."""
    sources = [given] if isinstance(given, Source) else list(given) if isinstance(given, Iterable) else []
    if not sources or not all(isinstance(one, Source) for one in sources):
        raise ValueError(f"expected the path of a scan, of several channels a list of one each, not {repr(given)[:60]}")
    return sources


def _source(given: Source) -> Path | Volume:
    if isinstance(given, Volume):
        return given
    path = with_name(Path(given))
    return volume_in(path) or path


def volume_in(path: Path) -> Volume | None:
    """The volume in a ZIP, or in a DICOM file; None of a folder and of a file that is another format's by its name.
    Raises ScanError where there is none, or not only one."""
    if os.path.isdir(path) or stem(path.name):
        return None
    with _named(path):
        if not (files := dicom_in(path, path, ())):
            if path.name.lower().endswith(ENDING) and os.path.isfile(path):
                raise ScanError(f"is a ZIP: {NO_DICOM}")
            return None
        from .dicom.find import find

        found = find(files, path, None)
        if not found.volumes:
            reasons = ", ".join(f"{shown(name)}: {reason}" for name, reason in found.left_out)
            hint = "" if is_archive(path) else "; a series of several files is given by its folder"
            raise ScanError(f"holds no volume ({reasons}){hint}")
        if len(found.volumes) > 1:
            names = ", ".join(shown(name) for name, _ in found.volumes)
            raise ScanError(f"holds {len(found.volumes)} volumes, where one is wanted: {names}")
    return found.volumes[0][1]


def _read(path: Path | Volume, accept: bool, hu: bool, resample: bool, abdominal: bool) -> Scan:
    with _named(path), np.errstate(all="ignore"):  # what is no number is found and said by our own checks
        scan: Scan = _reader(path, resample).read(path)
        odd = check_extent(scan.grid.shape[::-1], scan.grid.spacing[::-1], abdominal)
        if hu and isinstance(scan.origin, Header) and scan.origin.scaling:  # DICOM's reader has its own
            check_slope(scan.origin.scaling[0])
        voxels, more = checked(scan.voxels, accept) if hu else as_they_are(scan.voxels)
    return replace(scan, channels=(voxels,), warnings=(*odd, *scan.warnings, *more), checked=True)


def elsewhere(one: Grid, other: Grid) -> str | None:
    """What differs between two grids, None if they are one."""
    if one.shape != other.shape:
        return f"{times(one.shape[::-1])} and {times(other.shape[::-1])} voxels"
    # Of the affines: a label map in another format has no digits of the scan's header.
    if not np.allclose(one.steps, other.steps):  # nnU-Net refuses these too
        return f"voxels of {times(one.steps[::-1])} and {times(other.steps[::-1])} mm"
    if not np.allclose(one.affine, other.affine, atol=NEAR):
        far = float(np.abs(one.affine - other.affine).max())
        return f"their affines differ by up to {far:.3g}"
    return None


def peek(path: Source, resample: bool = False, abdominal: bool = True) -> Scan:
    """The scan without its voxels, which are not read: where they lie. Raises ScanError as `read_scan`."""
    path = _source(path)
    with _named(path):
        scan: Scan = _reader(path, resample).peek(path)
        odd = check_extent(scan.grid.shape[::-1], scan.grid.spacing[::-1], abdominal)
    return replace(scan, warnings=(*odd, *scan.warnings))


def write_empty(path: Source, outputs: Sequence[Path], about: Description, resample: bool = False) -> list[Written]:
    """Write a label map without labels on the grid that the header of a scan tells; its voxels are not read.

    Raises CaseError if the header cannot be read, UnwrittenError if a file cannot be written.
    """
    path = _source(path)
    scan = peek(path, resample, abdominal=False)  # a label map has no need of a whole abdomen
    check(scan, path.name, outputs)
    return write(np.zeros(scan.grid.shape, np.uint8), scan, outputs, about)


def _reader(path: Path | Volume, resample: bool) -> Any:
    """What reads a format. Raises ScanError."""
    if isinstance(path, Volume) or (os.path.isdir(path) and dicom_files(path)):
        from .dicom import read as dicom  # pydicom takes a tenth of a second, and NIfTI does not need it

        return dicom.Reader(resample)
    if os.path.isdir(path):
        raise ScanError("is a folder, not a file, and no slices of DICOM lie in it")
    if path.name.lower().endswith((".img", ".img.gz")):
        raise ScanError(PAIR)
    if path.name.lower().endswith(METAIMAGE + NRRD):
        return raster
    return nifti


@contextmanager
def _named(path: Path | Volume) -> Iterator[None]:
    """Errors begin with the file's name."""
    try:
        yield
    except CaseError as error:
        raise type(error)(f"{shown(path.name)} {error}") from error
