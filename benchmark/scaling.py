"""The eight sizes of the paper's Table 5, made from one real scan, and how time and memory grow over them."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmark.document import Run, Runs, write
from benchmark.paper import TABLE_5
from benchmark.run import add_measured, measure_as_told, summarise

SLICES = tuple(row.slices for row in TABLE_5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scan", type=Path, required=True)
    add_measured(parser)


def run(options: argparse.Namespace) -> None:
    """Measure the sizes of Table 5 made from one scan, and fit how time and memory grow."""
    with tempfile.TemporaryDirectory(prefix="viscera-scaling-") as temporary:
        make_sizes(options.scan, Path(temporary))
        document = measure_as_told(Path(temporary), options)
    summarise(document)
    grown = growth(document)
    for name, (base, slope) in grown.items():
        print(f"{name}: {base:.2f} + {slope:.4f} a slice")
    write(replace(document, growth=grown).to_json(), options.out)


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


def growth(document: Runs) -> dict[str, list[float]]:
    """`seconds` and `memory_mb`: [at no slices, for each slice], least squares through the cases' medians."""
    good: dict[int, list[Run]] = {}
    for case, runs in document.by_case().items():
        if well := [run for run in runs if run.ended_well]:
            good[int(case.removeprefix("slices_"))] = well
    if len(good) < 2:
        raise ValueError("growth needs two sizes at least whose runs ended well")
    counts = sorted(good)
    curves = {
        "seconds": [statistics.median(run.wall_s for run in good[count]) for count in counts],
        "memory_mb": [statistics.median(run.host_memory["max_mb"] for run in good[count]) for count in counts],
    }
    fits = {name: np.polyfit(counts, curve, 1) for name, curve in curves.items()}
    return {name: [round(float(base), 4), round(float(slope), 6)] for name, (slope, base) in fits.items()}
