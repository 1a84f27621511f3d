"""An organ is one piece: what a network calls by its name far away from it, a bladder that it takes for liver, goes.

Where its training found that the largest piece alone is better, as nnU-Net v1 tries, nothing else stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import cc3d
import numpy as np

from ..arrays import among
from ..boxes import bounding, widened
from ..card import Largest
from .body import dilated

CELL = 4.0  # mm: pieces are looked for on every so many voxels
FAR = 60.0  # mm between the boxes of two pieces: a pancreas found in parts has them 30 mm apart, a bladder lies beyond
LEAST = 0.1  # of an organ's largest piece: what is smaller does not show where organs are


def drop_far_pieces(labels: np.ndarray, spacing: Sequence[float], values: Iterable[int]) -> dict[int, int]:
    """Set to 0, in place, what lies FAR from the piece of its label that is the organ.

    Both size and company speak for a piece: its voxels count once, and once more for each other of `values` that is
    found near. A thigh that is taken for spleen is larger than the spleen, but alone.

    labels   (z, y, x) uint8
    spacing  mm (z, y, x)
    values   the labels that this is done for
    Returns how many voxels each of them lost, where it lost some.
    """
    wanted = set(values)
    step = [max(1, int(CELL / mm)) for mm in spacing]
    thin = np.ascontiguousarray(labels[:: step[0], :: step[1], :: step[2]])
    pieces, count = cc3d.connected_components(thin, connectivity=26, return_N=True)
    found = cc3d.statistics(pieces)
    boxes, sizes = found["bounding_boxes"], found["voxel_counts"]
    mm = np.array(spacing) * step
    by_label: dict[int, list[int]] = {}
    for piece in range(1, count + 1):
        part = boxes[piece]
        value = int(thin[part][pieces[part] == piece][0])
        if value in wanted:
            by_label.setdefault(value, []).append(piece)
    large = {
        value: [piece for piece in own if sizes[piece] >= LEAST * max(sizes[own])] for value, own in by_label.items()
    }

    def near(one: int, other: int) -> bool:
        return _gap(boxes[one], boxes[other], mm) <= FAR

    def standing(piece: int, value: int) -> int:
        others = [own for other, own in large.items() if other != value]
        return int(sizes[piece]) * (1 + sum(any(near(piece, each) for each in own) for own in others))

    lost: dict[int, int] = {}
    for value, own in sorted(by_label.items()):
        organ = max(own, key=lambda piece: standing(piece, value))
        for piece in own:
            if not near(piece, organ):
                lost[value] = lost.get(value, 0) + _drop(labels, pieces, piece, value, boxes[piece], step)
    return lost


def keep_largest(labels: np.ndarray, spacing: Sequence[float], rules: Iterable[Largest]) -> dict[int, int]:
    """Set to 0, in place, all pieces but the largest, rule by rule: nnU-Net v1's
    remove_all_but_the_largest_connected_component. Pieces hang together by faces; of two that are largest both stay.

    labels   (z, y, x) uint8
    spacing  mm (z, y, x)
    Returns how many voxels each value lost, where it lost some.
    """
    mm3, lost = prod(spacing), np.zeros(256, int)
    for rule in rules:
        mask = among(labels, rule.values)
        if (box := bounding(mask)) is None:
            continue
        part = labels[box]
        pieces = cc3d.connected_components(mask[box], connectivity=6)
        sizes = cc3d.statistics(pieces)["voxel_counts"].astype(np.int64)
        goes = sizes != sizes[1:].max()
        if rule.below is not None:
            goes &= sizes * mm3 < rule.below
        goes[0] = False
        gone = goes[pieces]
        lost += np.bincount(part[gone], minlength=256)
        part[gone] = 0
    return {value: int(n) for value, n in enumerate(lost) if n}


def _gap(one: tuple[slice, ...], other: tuple[slice, ...], mm: np.ndarray) -> float:
    """Distance of two boxes, mm; 0 where they touch or overlap."""
    apart = [max(a.start - b.stop, b.start - a.stop, 0) for a, b in zip(one, other, strict=True)]
    return float(np.linalg.norm(np.array(apart) * mm))


def _drop(
    labels: np.ndarray, pieces: np.ndarray, piece: int, value: int, box: tuple[slice, ...], step: list[int]
) -> int:
    """Set the voxels of a piece of the thinned volume to 0, and those of its label beside it; returns how many."""
    grown = widened(box, 1)
    mask = pieces[grown] == piece
    for axis in range(3):  # its edges and corners lie between the voxels that were looked at
        mask = dilated(mask, (axis,)).repeat(step[axis], axis)
    part = labels[tuple(slice(cells.start * n, cells.stop * n) for cells, n in zip(grown, step, strict=True))]
    gone = (part == value) & mask[tuple(slice(0, n) for n in part.shape)]
    part[gone] = 0
    return int(gone.sum())
