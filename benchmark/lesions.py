"""Scores of tumours one by one: which of the reference's are found, and what is called tumour and is none.

A lesion is a piece of the tumour label, connected by faces, edges or corners. One of the reference is found if a piece
of the prediction has an intersection over union (IoU) of at least 0.1 with it, the threshold of nnDetection
(Baumgartner et al., arXiv:2106.00817): an outline may be rough, but not somewhere else. A piece of the prediction that
has it with none of them is false, however large or small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np

from benchmark.scoring import UNKNOWN
from inference.labels import TUMOR

FOUND = 0.1  # least IoU
LARGE = 10.0  # ml, above which lesions are counted apart


@dataclass(frozen=True)
class Lesion:
    """One of the reference: its volume, and the IoU of the piece of the prediction that fits it best."""

    ml: float
    iou: float

    @property
    def found(self) -> bool:
        return self.iou >= FOUND


@dataclass(frozen=True)
class Lesions:
    """Of one case; both lists are empty where neither map has a tumour."""

    reference: tuple[Lesion, ...]
    false_ml: tuple[float, ...]  # volumes of the pieces that are none

    def to_json(self) -> dict[str, Any]:
        lesions = [{"ml": one.ml, "iou": one.iou, "found": one.found} for one in self.reference]
        return {"reference": lesions, "false_ml": list(self.false_ml)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Lesions:
        lesions = (Lesion(one["ml"], one["iou"]) for one in document["reference"])
        return cls(tuple(lesions), tuple(document["false_ml"]))


def score_lesions(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float]) -> Lesions:
    """Of two label maps of one shape (x, y, z), spacing mm. Voxels of the reference that nobody can tell count nowhere,
    but hold a piece of the prediction together: a rim of them around a tumour does not make a second one."""
    ours, theirs = (_pieces(labels) for labels in (prediction, reference))
    known = reference != UNKNOWN
    both, together = np.unique(np.stack([theirs[known], ours[known]]), axis=1, return_counts=True)
    voxels = {(int(wanted), int(found)): int(count) for (wanted, found), count in zip(both.T, together, strict=True)}
    of_theirs, of_ours = _sums(voxels, 0), _sums(voxels, 1)
    overlap = {pair: n / (of_theirs[pair[0]] + of_ours[pair[1]] - n) for pair, n in voxels.items() if all(pair)}
    ml = float(np.prod(spacing)) / 1000
    lesions = [
        Lesion(count * ml, max((iou for (wanted, _), iou in overlap.items() if wanted == lesion), default=0.0))
        for lesion, count in of_theirs.items()
    ]
    true = {found for (_, found), iou in overlap.items() if iou >= FOUND}
    false = [count * ml for piece, count in of_ours.items() if piece not in true]
    return Lesions(tuple(sorted(lesions, key=lambda one: -one.ml)), tuple(sorted(false, reverse=True)))


def _pieces(labels: np.ndarray) -> np.ndarray:
    """Numbers of the pieces of tumour, from 1."""
    pieces: np.ndarray = cc3d.connected_components(labels == TUMOR.value, connectivity=26)
    return pieces


def _sums(voxels: Mapping[tuple[int, int], int], axis: int) -> dict[int, int]:
    """Piece -> its voxels that are known."""
    sums: dict[int, int] = {}
    for pair, count in voxels.items():
        if pair[axis]:
            sums[pair[axis]] = sums.get(pair[axis], 0) + count
    return sums


def summary(cases: Iterable[Lesions]) -> dict[str, Any]:
    """Over all cases: how many lesions there are and how many of them are found, all and the large ones; false pieces
    per case, all and the large ones, and their ml. None where there is nothing to take a share of."""
    scored = list(cases)
    lesions = [one for case in scored for one in case.reference]
    large = [one for one in lesions if one.ml > LARGE]
    false = [ml for case in scored for ml in case.false_ml]
    result: dict[str, Any] = {"cases": len(scored)}
    for kind, some in (("", lesions), ("_large", large)):
        found = sum(one.found for one in some)
        result |= {f"lesions{kind}": len(some), f"found{kind}": found}
        result[f"sensitivity{kind}"] = found / len(some) if some else None
    totals = {"false": len(false), "false_large": sum(ml > LARGE for ml in false), "false_ml": sum(false)}
    return result | {f"{name}_a_case": total / len(scored) if scored else None for name, total in totals.items()}


def rows(cases: Mapping[str, Lesions]) -> list[list[str]]:
    """A table, its head first: one row a case and one of all."""
    made = [["tumours", "found", f"found, over {LARGE:g} ml", "false", f"false, over {LARGE:g} ml", "false ml"]]
    for name, case in cases.items():
        made.append(_row(name, summary([case])))
    if len(cases) > 1:
        made.append(_row("a scan, of all", summary(cases.values())))
    return made


def _row(name: str, of: Mapping[str, Any]) -> list[str]:
    found = [f"{of[f'found{kind}']} of {of[f'lesions{kind}']}" for kind in ("", "_large")]
    decimals = 0 if of["cases"] == 1 else 1
    false = [f"{of[f'false{kind}_a_case']:.{decimals}f}" for kind in ("", "_large")]
    return [name, *found, *false, f"{of['false_ml_a_case']:.1f}"]
