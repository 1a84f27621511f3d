"""Reads a folder of one DICOM series, slice by slice, through SimpleITK.

Whatever is doubtful is refused, naming file and tag. SimpleITK's own reader of series leaves out the files that it
cannot read, takes the first slice's rescaling for all, and 1 mm for a spacing that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...scan import Scan
from ..geometry import check_memory
from .pixels import unlike, voxels_of
from .slices import MOST_NAMED, Slice, check_ct, headers
from .stack import stack


@dataclass(frozen=True)
class Series:
    """Where a scan came from: the files of its planes, in the order of z."""

    files: tuple[Path, ...]


def read(folder: Path) -> Scan:
    """A scan. Raises ScanError, whose text goes on from the folder's name, and MemoryBudgetError."""
    slices = headers(folder)
    for one in slices:
        check_ct(one)
    slices, grid, warnings = stack(slices)
    check_memory(grid.shape[::-1], 4)
    voxels = voxels_of(slices, grid.shape)
    odd = [f"{slices[z].name} is unlike both slices beside it: its pixels may be damaged" for z in unlike(voxels)]
    return Scan((voxels,), grid, _origin(slices), (*warnings, *odd[:MOST_NAMED]))


def peek(folder: Path) -> Scan:
    """The scan without its voxels: pixels may be damaged. Raises ScanError."""
    slices, grid, warnings = stack(headers(folder))
    return Scan((), grid, _origin(slices), tuple(warnings))


def _origin(slices: Sequence[Slice]) -> Series:
    return Series(tuple(one.file for one in slices))
