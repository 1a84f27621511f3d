"""The eight sizes of the paper's Table 5, made from one real scan, and how time and memory grow over them."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmark.paper import TABLE_5

SLICES = tuple(row.slices for row in TABLE_5)


def make_sizes(scan: Path, out: Path, slices: tuple[int, ...] = SLICES) -> None:
    """Write slices_055_0000.nii.gz, ... to `out`: the scan with each number of slices, its extent kept.

    Slices are interpolated linearly between the scan's own, so that the anatomy, and with it the windows that the
    abdomen plan runs, stay those of a patient. The thickness is what the extent gives: 5 to 0.5 mm for an abdomen.
    """
    image = nib.as_closest_canonical(nib.load(scan))
    voxels = np.asarray(image.dataobj)
    n = voxels.shape[2]
    for count in slices:
        at = np.linspace(0, n - 1, count)
        below = np.minimum(at.astype(int), n - 2) if n > 1 else np.zeros(count, int)
        share = (at - below).astype(np.float32)
        low, high = voxels[:, :, below], voxels[:, :, np.minimum(below + 1, n - 1)]
        made = np.rint(low + (high.astype(np.float32) - low) * share).astype(np.int16)
        affine = image.affine.copy()
        affine[:3, 2] *= (n - 1) / max(count - 1, 1)
        nib.save(nib.Nifti1Image(made, affine), out / f"slices_{count:03d}_0000.nii.gz")


def growth(document: dict[str, Any]) -> dict[str, list[float]]:
    """`seconds` and `memory_mb`: [at no slices, for each slice], least squares through the cases' medians."""
    cases: dict[int, list[dict[str, Any]]] = {}
    for run in document["runs"]:
        if run["exit_code"] == 0:
            cases.setdefault(int(run["case"].removeprefix("slices_")), []).append(run)
    if len(cases) < 2:
        raise ValueError("growth needs two sizes at least whose runs ended well")
    counts = sorted(cases)
    curves = {
        "seconds": [statistics.median(run["wall_s"] for run in cases[count]) for count in counts],
        "memory_mb": [statistics.median(run["host_memory"]["max_mb"] for run in cases[count]) for count in counts],
    }
    fits = {name: np.polyfit(counts, curve, 1) for name, curve in curves.items()}
    return {name: [round(float(base), 4), round(float(slope), 6)] for name, (slope, base) in fits.items()}
