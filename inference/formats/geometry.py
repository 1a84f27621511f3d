"""What readers of all formats ask of a grid before they read voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .. import machine
from ..errors import MemoryBudgetError, ScanError
from ..scan import Grid, check_grid

LONGEST = 2**15 - 1  # voxels along an axis that the header of a NIfTI-1 label map can tell
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from RAS, and back
BESIDE = 6  # bytes a voxel beside the stored ones: float32, where they are converted, and labels twice


@dataclass(frozen=True)
class Image:
    """What the voxels of a file are.

    grid      of the voxels
    dtype     as they are stored, in the file's byte order
    warnings  one sentence each for what is odd
    origin    what a writer of the same format copies, such as numbers to their last digit
    """

    grid: Grid
    dtype: np.dtype[Any]
    warnings: tuple[str, ...]
    origin: Any = None


def check_memory(shape: Sequence[int], stored: int) -> None:
    """Before voxels of `stored` bytes each are read; shape in the order in which it is named.

    Raises MemoryBudgetError.
    """
    need, budget = prod(shape) * (stored + BESIDE), machine.memory_budget()
    if need > budget:
        raise MemoryBudgetError(
            f"is too large: {' x '.join(map(str, shape))} voxels need {need / 1e9:.2f} GB, "
            f"and {budget / 1e9:.2f} GB are free"
        )


def lps_grid(
    affine: np.ndarray,
    shape: Sequence[int],
    treatment: str = "segmented as stored",
    spacing: Sequence[float] | None = None,
) -> tuple[Grid, list[str]]:
    """The grid of ITK and DICOM, whose world is LPS, and what is odd about it.

    affine  (4, 4) from voxel index (x, y, z) to mm
    shape   (x, y, z)
    treatment  of a scan whose axes are not at right angles
    spacing  (x, y, z) mm, where the file tells it to the last digit
    Raises ScanError if no scan lies so, or if no label map could.
    """
    if max(shape) > LONGEST:
        raise ScanError(f"is too long for a label map: {max(shape)} voxels along an axis, NIfTI holds {LONGEST}")
    # Rounded as its label map will store it, so that both say the same.
    rounded = (LPS @ affine).astype(np.float32).astype(np.float64)
    x, y, z = shape
    grid = Grid((z, y, x), rounded, (spacing[2], spacing[1], spacing[0]) if spacing is not None else None)
    return grid, check_grid(grid, treatment)
