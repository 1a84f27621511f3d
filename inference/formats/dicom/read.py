"""Reads the slices of one DICOM volume as a scan. Whatever is doubtful is refused, naming file and tag."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path

import numpy as np

from ...scan import SHEAR, Scan, shear
from ..geometry import check_memory
from ..sources import Picture, Volume, dicom_files
from .copies import without_copies
from .headers import headers, headers_of
from .pixels import unlike, voxel_bytes, voxels_of
from .slices import MOST_NAMED, check_ct, check_one_series, check_picture
from .stack import Stack, stack
from .unpacking import beside, planes_of


@dataclass(frozen=True)
class Series:
    """Where a scan came from.

    pictures  its slices, in the order of z
    uids      of each of them its SOPInstanceUID; empty where it has none
    places    of each of them, in planes of the grid: between two, where slices that lie unevenly were resampled
    """

    pictures: tuple[Picture, ...]
    uids: tuple[str, ...]
    places: tuple[float, ...]


@dataclass(frozen=True)
class Reader:
    """Reads the folder of one series, or the slices of a volume.

    resample  slices that are unevenly apart are interpolated on an even grid, not refused
    """

    resample: bool = False

    def read(self, source: Path | Volume) -> Scan:
        """A scan. Raises ScanError, whose text goes on from the folder's name, and MemoryBudgetError."""
        found = _stacked(source, self.resample)
        check_memory(found.grid.shape[::-1], 4)
        voxels = voxels_of(found.slices, planes_of(found.slices))
        odd = [
            f"{found.slices[z].name} is unlike both slices beside it: its pixels may be damaged" for z in unlike(voxels)
        ]
        return _scan((_evenly(voxels, found),), found, (*found.warnings, *odd[:MOST_NAMED]))

    def peek(self, source: Path | Volume) -> Scan:
        """The scan without its voxels: pixels may be damaged. Raises ScanError."""
        found = _stacked(source, self.resample, whole=False)
        held, most = voxel_bytes(found.slices)
        most += ceil(beside(found.slices) / prod(found.grid.shape))
        return replace(_scan((), found, tuple(found.warnings)), voxel_bytes=(held, most))


def _stacked(source: Path | Volume, resample: bool, whole: bool = True) -> Stack:
    if isinstance(source, Volume):
        slices = headers(source.pictures)
    else:
        slices = headers_of(dicom_files(source))
        check_one_series(slices)
    for one in slices:
        check_picture(one)
        if whole:
            check_ct(one)
    slices, warnings = without_copies(slices)
    found = stack(slices, resample)
    return Stack(found.slices, found.grid, found.places, [*warnings, *found.warnings])


def _scan(channels: tuple[np.ndarray, ...], found: Stack, warnings: tuple[str, ...]) -> Scan:
    slices = found.slices
    uids = tuple(one.tags.get("SOPInstanceUID", "") for one in slices)
    origin = Series(tuple(one.picture for one in slices), uids, tuple(map(float, found.places)))
    return Scan(channels, found.grid, origin, warnings, tilted=shear(found.grid) > SHEAR, resampled=_is_uneven(found))


def _is_uneven(found: Stack) -> bool:
    return not np.array_equal(found.places, np.arange(found.grid.shape[0]))


def _evenly(voxels: np.ndarray, found: Stack) -> np.ndarray:
    """The planes of the grid: slices as they are, or between the two that lie beside them."""
    count = found.grid.shape[0]
    if not _is_uneven(found):
        return voxels
    planes = np.empty((count, *voxels.shape[1:]), voxels.dtype)
    for z in range(count):
        above = min(max(int(np.searchsorted(found.places, z)), 1), len(voxels) - 1)
        low, high = found.places[above - 1 : above + 1]
        share = min(max((z - low) / (high - low), 0), 1)
        plane = (1 - share) * voxels[above - 1].astype(np.float32) + share * voxels[above]
        planes[z] = np.rint(plane) if voxels.dtype == np.int16 else plane
    return planes
