"""Slices that a series holds twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ...errors import ScanError
from .headers import quiet
from .pixels import stored
from .slices import PHASES, Slice, tag

# What makes of two slices at one place the same slice, if their pixels are the same too.
SAME = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", *PHASES)
NEAR = 1e-3  # mm


def without_copies(slices: Sequence[Slice]) -> tuple[list[Slice], list[str]]:
    """Each slice once, and a warning if some were there twice. Raises ScanError where pixels cannot be read.

    Two slices with one SOPInstanceUID are meant to be one: where they contradict each other it is not known which is
    right, and ScanError is raised.
    """
    kept: list[Slice] = []
    places: dict[tuple[int, ...], list[Slice]] = {}
    dropped = 0
    for one in slices:
        place = tuple(int(n) for n in np.rint(one.numbers("ImagePositionPatient", 3) / NEAR))
        twins = places.setdefault(place, [])
        twin = next((other for other in twins if _same(one, other)), None)
        if twin:
            dropped += 1
            continue
        twins.append(one)
        kept.append(one)
    warnings = [f"{dropped} {'slice is a copy' if dropped == 1 else 'slices are copies'} of another: left out"]
    return kept, warnings * (dropped > 0)


def _same(one: Slice, other: Slice) -> bool:
    """Raises ScanError."""
    alike = all(one.tags.get(name) == other.tags.get(name) for name in SAME)
    equal = alike and _digest(one) == _digest(other)
    uid = one.tags.get("SOPInstanceUID")
    if not equal and uid and uid == other.tags.get("SOPInstanceUID") and (one.frame == other.frame):
        raise ScanError(
            f"holds {other.name} and {one.name}, which have the same {tag('SOPInstanceUID')} and differ: "
            "take the wrong one out"
        )
    return equal


def _digest(one: Slice) -> bytes:
    with quiet():
        return hashlib.sha256(stored(one)).digest()
