"""What several networks say of scans, and what of it to believe.

A voxel takes the label of most teachers. Partial references keep their word: a voxel that a reference labels has that
label, and no other voxel has a label that the reference knows. The trust in a label of a scan is the mean Dice between
each teacher and the vote: a label below the least trust is ignored wherever any teacher gave it, and a scan in which
fewer than LEAST_SHARE of the labels found are trusted is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmark.process import start
from training.files import label_maps_of

LEAST_SHARE = 0.5  # of the labels found in a scan, for the scan to be kept


def vote(maps: Sequence[np.ndarray]) -> np.ndarray:
    """The label that most of the maps give each voxel, uint8; among equals the lowest, so background first."""
    labels = np.unique(np.concatenate([np.unique(one) for one in maps]))
    best = np.zeros(maps[0].shape, np.uint8)
    most = np.full(maps[0].shape, -1, np.int8)
    for label in labels:
        count = np.zeros(maps[0].shape, np.int8)
        for one in maps:
            count += one == label
        better = count > most
        best[better], most[better] = label, count[better]
    return best


def trust(maps: Sequence[np.ndarray], voted: np.ndarray) -> dict[int, float]:
    """Label -> mean Dice of each map with the vote, for every label that any map or the vote holds."""
    labels = {int(label) for one in (*maps, voted) for label in np.unique(one)} - {0}
    result = {}
    for label in sorted(labels):
        wanted = voted == label
        dice = [2 * np.sum((one == label) & wanted) / max(np.sum(one == label) + wanted.sum(), 1) for one in maps]
        result[label] = float(np.mean(dice))
    return result


def trusted(
    maps: Sequence[np.ndarray],
    keep: float,
    ignore: int,
    reference: np.ndarray | None = None,
    known: frozenset[int] = frozenset(),
) -> tuple[np.ndarray, dict[int, float], bool]:
    """Pseudo-labels of one scan, the trust by label, and whether the scan is kept.

    maps       of the teachers, uint8
    keep       least trust in a label
    ignore     the value of voxels about which nothing is known
    reference  a partial reference, if there is one, and the labels that are `known` from it
    """
    merged = vote(maps)
    agreed = trust(maps, merged)
    doubted = [label for label, dice in agreed.items() if dice < keep and label not in known]
    for label in doubted:
        for one in maps:
            merged[one == label] = ignore
    if reference is not None:
        for label in known:
            merged[(merged == label) & (reference != label)] = ignore  # the teachers were wrong: it may be anything
            merged[reference == label] = label
    kept = not agreed or len(doubted) <= (1 - LEAST_SHARE) * len(agreed)
    return merged, agreed, kept


def segmented(teachers: Sequence[Path], scans: Path, work: Path) -> Iterator[tuple[str, Any, list[np.ndarray]]]:
    """Segment the folder `scans` with every teacher by `python -m inference`. Gives each case, its label map by the
    first teacher as an image, and those by all as uint8 arrays (x, y, z)."""
    folders = [work / f"teacher-{number}" for number in range(len(teachers))]
    for teacher, folder in zip(teachers, folders, strict=True):
        start(scans, folder, "--weights", teacher, "--resume")  # a stage that was killed goes on where it was
    for case, path in label_maps_of(folders[0]).items():
        yield case, nib.load(path), [np.asarray(nib.load(folder / path.name).dataobj, np.uint8) for folder in folders]
