"""A CT scan in memory: voxels, spacing, orientation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}


@dataclass(frozen=True)
class Scan:
    """A CT volume in the order its file stores it.

    voxels       (z, y, x) int16 or float32, HU, finite; x is the fastest axis of the file
    spacing      (z, y, x) mm
    orientation  three letters for the axes x, y, z: the side of the patient towards
                 which the index grows; "LPS" is what DICOM stores
    warnings     one sentence each for what was odd but could be read
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float]
    orientation: str
    warnings: tuple[str, ...] = field(default=())


def reorient(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """Turn the last three axes (z, y, x) from orientation `source` to `target`, as a view.

    The inverse is the same call with the two orientations exchanged.
    Raises ValueError where either is not one letter out of each of LR, AP and SI.
    """
    for orientation in (source, target):
        if sorted(min(letter, OPPOSITE.get(letter, "?")) for letter in orientation) != ["A", "I", "L"]:
            raise ValueError(f"orientation {orientation!r} is not one letter out of each of LR, AP and SI")
    lead = array.ndim - 3
    axes, flips = list(range(lead)), [slice(None)] * lead
    for letter in reversed(target):  # target axes in array order: z, y, x
        at = next(i for i, own in enumerate(source) if own in (letter, OPPOSITE[letter]))
        axes.append(lead + 2 - at)
        flips.append(slice(None, None, 1 if source[at] == letter else -1))
    return array.transpose(axes)[tuple(flips)]
