"""The numbers of statistics.json, as `get_basic_statistics` of TotalSegmentator 2.18.0 (statistics.py) has them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ..scan import Spacing

BORDER = 3  # voxels: a structure that comes as near to an end of the volume counts as cut off
VALUES = 256
Statistics = dict[str, dict[str, Any]]


def statistics(
    labels: np.ndarray,
    voxels: np.ndarray,
    spacing: Spacing,
    names: Mapping[int, str],
    *,
    median: bool = False,
    cut_too: bool = False,
    extra: bool = False,
) -> Statistics:
    """Structure -> `volume` (mm3) and `intensity` (its mean), 0 where it was not found or is cut off.

    labels, voxels  (z, y, x), uint8 and numbers; the fractions of the latter are cut off
    spacing         (z, y, x) mm
    names           value -> structure
    median          in place of the mean
    cut_too         measures structures within 3 voxels of the ends of the volume as well
    extra           adds n_voxels, intensity_std, intensity_min, intensity_max, centroid_vox and bbox_vox: (x, y, z)
    """
    counts, sums = np.zeros(VALUES, np.int64), np.zeros(VALUES)
    for plane, hu in zip(labels, voxels, strict=True):
        counts += np.bincount(plane.reshape(-1), minlength=VALUES)
        sums += np.bincount(plane.reshape(-1), hu.astype(np.int16).reshape(-1), VALUES)
    cut = set() if cut_too else _near_ends(labels)
    found: Statistics = {}
    for value, name in names.items():
        there = bool(counts[value]) and value not in cut
        entry = found[name] = {"volume": 0.0, "intensity": 0.0}
        if there:
            entry["volume"] = int(counts[value]) * prod(spacing)
            entry["intensity"] = round(float(sums[value] / counts[value]), 5)
        if there and (median or extra):
            at = np.nonzero(labels == value)
            hu = voxels[at].astype(np.int16)
            if median:
                entry["intensity"] = float(np.median(hu))
        if extra:
            entry |= _more(at, hu) if there else _nothing()
    return found


def _near_ends(labels: np.ndarray) -> set[int]:
    ends = [np.moveaxis(labels, axis, 0)[part] for axis in range(3) for part in (slice(BORDER), slice(-BORDER, None))]
    return {value for end in ends for value in np.unique(end).tolist()}


def _more(at: tuple[np.ndarray, ...], hu: np.ndarray) -> dict[str, Any]:
    return {
        "n_voxels": len(hu),
        "intensity_std": round(float(hu.std()), 5),
        "intensity_min": float(hu.min()),
        "intensity_max": float(hu.max()),
        "centroid_vox": [round(float(axis.mean()), 2) for axis in reversed(at)],
        "bbox_vox": [[int(axis.min()), int(axis.max())] for axis in reversed(at)],
    }


def _nothing() -> dict[str, Any]:
    none = {"n_voxels": 0, "intensity_std": 0.0, "intensity_min": 0.0, "intensity_max": 0.0}
    return none | {"centroid_vox": None, "bbox_vox": None}
