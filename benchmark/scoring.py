"""Scores of label maps as FLARE 2023 computes them: DSC, and NSD at a tolerance of each organ's own.

The rules are those of the challenge's evaluation script (FLARE23_DSC_NSD_Eval.py, github.com/JunMa11/FLARE),
the surface distances those of the library that it uses (Nikolov et al., arXiv:1809.04430).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import nibabel as nib
import numpy as np
from surface_distance import metrics

from inference.boxes import bounding
from inference.labels import BY_VALUE

# Tolerance of NSD, mm.
TOLERANCES: dict[str, float] = {
    "liver": 5, "right_kidney": 3, "spleen": 3, "pancreas": 5, "aorta": 2, "inferior_vena_cava": 2,
    "right_adrenal_gland": 2, "left_adrenal_gland": 2, "gallbladder": 2, "esophagus": 3, "stomach": 5, "duodenum": 7,
    "left_kidney": 3, "tumor": 2,
}  # fmt: skip
# Scored only where the reference has them: how far a tube is drawn is a matter of taste.
TUBES = ("aorta", "inferior_vena_cava", "esophagus")
UNKNOWN = 255  # of a reference: nobody can tell, so that neither map's voxels there count
LEAST_DSC = 0.2  # below it NSD counts as 0 (0.1 until March 2024)


@dataclass(frozen=True)
class Score:
    """DSC and NSD of one label in one case, both in 0..1; None where the reference has no slice to score on."""

    dsc: float | None
    nsd: float | None


def score_case(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float], labels: list[int]
) -> dict[int, Score]:
    """Scores by label of two label maps (x, y, z) whole numbers, z along the patient; spacing (x, y, z) mm.

    Raises ValueError where the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"label maps of shapes {prediction.shape} and {reference.shape} cannot be compared")
    prediction = np.where(reference == UNKNOWN, 0, prediction)
    return {label: _score(prediction == label, reference == label, spacing, label) for label in labels}


def _score(found: np.ndarray, wanted: np.ndarray, spacing: tuple[float, float, float], label: int) -> Score:
    key = BY_VALUE[label].key
    if key in TUBES and wanted.any():
        slices = np.flatnonzero(wanted.any(axis=(0, 1)))
        part = slice(slices[0], slices[-1])  # the script leaves the highest slice out
        if part.start == part.stop:
            return Score(None, None)
        found, wanted = found[:, :, part], wanted[:, :, part]
    if not wanted.any() or not found.any():
        same = float(wanted.any() == found.any())
        return Score(same, same)
    box = bounding(found | wanted)
    found, wanted = found[box], wanted[box]
    dsc = 2 * float((found & wanted).sum()) / float(found.sum() + wanted.sum())
    if dsc < LEAST_DSC:
        return Score(dsc, 0.0)
    distances = metrics.compute_surface_distances(wanted, found, spacing)
    return Score(dsc, float(metrics.compute_surface_dice_at_tolerance(distances, TOLERANCES[key])))


def means(scores: Mapping[str, Mapping[int, Score]]) -> dict[int, Score]:
    """Mean of each label over the cases that score it."""
    result = {}
    for label in BY_VALUE:
        found = [case[label] for case in scores.values() if label in case and case[label].dsc is not None]
        if found:
            result[label] = mean_of(found)
    return result


def mean_of(scores: Sequence[Score]) -> Score:
    """None where no score is known."""
    dsc = [score.dsc for score in scores if score.dsc is not None]
    nsd = [score.nsd for score in scores if score.nsd is not None]
    return Score(fmean(dsc) if dsc else None, fmean(nsd) if nsd else None)


def read_pair(prediction: Path, reference: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Two label maps (x, y, z) uint8 and their spacing in mm.

    Raises ValueError, naming the files, where they are not on one grid or hold values that are not labels.
    """
    ours, theirs = nib.load(prediction), nib.load(reference)
    if ours.shape != theirs.shape or not np.allclose(ours.affine, theirs.affine, atol=1e-3):
        raise ValueError(f"{prediction} and {reference} do not lie on the same grid")
    maps = []
    for path, image in ((prediction, ours), (reference, theirs)):
        values = np.asanyarray(image.dataobj)
        if values.min() < 0 or values.max() > 255 or (values.dtype.kind == "f" and (values % 1).any()):
            raise ValueError(f"{path} is no label map: its values run from {values.min():g} to {values.max():g}")
        maps.append(values.astype(np.uint8))
    x, y, z = (float(mm) for mm in theirs.header.get_zooms()[:3])
    return maps[0], maps[1], (x, y, z)
