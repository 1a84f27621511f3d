"""A CT scan in memory: voxels, spacing, orientation; which of them are plausible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import ScanError

FEWEST = 3  # voxels along an axis
SPACING = (0.05, 30.0)  # mm
THICK = 10.0  # mm
EXTENT = (30.0, 3000.0)  # mm
OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}


@dataclass(frozen=True)
class Scan:
    """A CT volume in the order its file stores it.

    voxels       (z, y, x) int16 or float32, HU, finite; x is the fastest axis of the file
    spacing      (z, y, x) mm
    orientation  three letters for the axes x, y, z: the side of the patient towards
                 which the index grows; "LPS" is what DICOM stores
    warnings     one sentence each for what was odd but could be read
    checked      whether hounsfield.checked has seen the voxels
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float]
    orientation: str
    warnings: tuple[str, ...] = field(default=())
    checked: bool = False


def check_extent(shape: Sequence[int], spacing: Sequence[float]) -> list[str]:
    """What is odd about a scan of so many voxels, so many mm apart; both in the order in which they are to be named.

    Raises ScanError where that is no CT of an abdomen.
    """
    extent = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    if min(shape) < FEWEST:
        raise ScanError(f"has only {times(shape)} voxels: no volume")
    if min(spacing) < SPACING[0] or max(spacing) > SPACING[1]:
        raise ScanError(f"has the spacing {times(spacing)} mm: not plausible for CT")
    if min(extent) < EXTENT[0] or max(extent) > EXTENT[1]:
        raise ScanError(f"covers {times(extent)} mm: not plausible for abdominal CT")
    return [f"spacing {times(spacing)} mm is coarse: small organs will be missed"] if max(spacing) > THICK else []


def times(sizes: Iterable[float]) -> str:
    """Sizes as they are named in messages."""
    return " x ".join(f"{float(size):g}" for size in sizes)


def check_orientation(orientation: str) -> None:
    """Raises ValueError where it is not one letter out of each of LR, AP and SI."""
    if sorted(min(letter, OPPOSITE.get(letter, "?")) for letter in orientation) != ["A", "I", "L"]:
        raise ValueError(f"orientation {orientation!r} is not one letter out of each of LR, AP and SI")


def reorient(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """Turn the last three axes (z, y, x) from orientation `source` to `target`, as a view.

    The inverse is the same call with the two orientations exchanged.
    Raises ValueError where either is not one letter out of each of LR, AP and SI.
    """
    for orientation in (source, target):
        check_orientation(orientation)
    lead = array.ndim - 3
    axes, flips = list(range(lead)), [slice(None)] * lead
    for letter in reversed(target):  # target axes in array order: z, y, x
        at = next(i for i, own in enumerate(source) if own in (letter, OPPOSITE[letter]))
        axes.append(lead + 2 - at)
        flips.append(slice(None, None, 1 if source[at] == letter else -1))
    return array.transpose(axes)[tuple(flips)]
