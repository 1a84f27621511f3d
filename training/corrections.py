"""Corrections of labels, kept as data: which voxels of which label become what, and why.

training/corrections.json has those of the reviewed scans that are trained on, made by eye, slice by slice: outlines
drawn by hand; or a network's own outline, where beside the bare image it was seen to be right, as far as the HU agree.
An entry takes, in the slices z[0] to z[1] of its scan, the voxels inside `polygon` ([x, y] voxels, its
outline included) whose label is one of `from`, and gives them the label `to`; with `hu`, only those whose HU, smoothed
by 1 mm, lie between the two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

SMOOTHING = 1.0  # mm
REACH = 3  # slices around an entry's that its smoothed HU depend on


@dataclass(frozen=True)
class Correction:
    scan: str
    why: str
    z: tuple[int, int]
    polygon: tuple[tuple[int, int], ...]
    codes: tuple[int, ...]  # from
    code: int  # to
    hu: tuple[float, float] | None = None


def read_corrections(path: Path) -> dict[str, list[Correction]]:
    """Scan -> its corrections, in their order. Raises ValueError, naming the file, if it is no such list."""
    found: dict[str, list[Correction]] = {}
    try:
        for entry in json.loads(path.read_bytes()):
            polygon = tuple((int(x), int(y)) for x, y in entry["polygon"])
            first, last = entry["z"]
            hu = entry.get("hu")
            codes, code = tuple(entry["from"]), int(entry["to"])
            one = Correction(entry["scan"], entry["why"], (first, last), polygon, codes, code, hu and tuple(hu))
            found.setdefault(one.scan, []).append(one)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as a list of corrections: {error}") from error
    return found


def corrected(
    label: np.ndarray, hu: np.ndarray, spacing: Sequence[float], corrections: Sequence[Correction]
) -> np.ndarray:
    """A copy of `label` (z, y, x), LPS, with the corrections made one after the other. spacing is mm (z, y, x).

    Raises ValueError if one lies beyond the scan.
    """
    label = label.copy()
    for one in corrections:
        first, last = one.z
        if not 0 <= first <= last < len(label):
            raise ValueError(f"{one.scan} has {len(label)} slices: the correction of {first} to {last} is another's")
        page = Image.new("1", label.shape[:0:-1])
        ImageDraw.Draw(page).polygon(list(one.polygon), fill=1, outline=1)
        part = label[first : last + 1]
        taken = np.isin(part, one.codes) & np.asarray(page)
        if one.hu:
            start = max(0, first - REACH)
            near = hu[start : last + 1 + REACH].astype(np.float32)
            smooth = gaussian_filter(near, [SMOOTHING / step for step in spacing])[first - start :][: len(part)]
            taken &= (smooth >= one.hu[0]) & (smooth <= one.hu[1])
        part[taken] = one.code
    return label
