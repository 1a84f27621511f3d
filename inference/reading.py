"""Opens a scan of any format that we read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inference import nifti
from inference.cases import OTHER
from inference.errors import CaseError, shown
from inference.scan import Scan

if TYPE_CHECKING:
    from inference.header import Header


def read_scan(path: Path, accept: bool = False) -> tuple[Scan, Header]:
    """The scan and what write_labels needs; with `accept` also of voxels that cannot be HU, with a warning.

    Raises ScanError and MemoryBudgetError: file and cause in a sentence.
    """
    try:
        if path.is_dir() or path.suffix.lower() in OTHER:
            from inference import itk  # SimpleITK is large, and NIfTI does not need it

            return itk.read_scan(path, accept)
        with np.errstate(all="ignore"):  # what is no number is found and said by our own checks
            return nifti.read_scan(path, accept)
    except CaseError as error:
        raise type(error)(f"{shown(path.name)} {error}") from error
