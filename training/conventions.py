"""Where the labels of reviewed scans end, in millimetres: `python -m training.conventions --data DIR`

What docs/conventions.md says of our labels was measured with it. Prints each measure's median, its 10th and 90th
percentile, and in how many scans it could be taken. An organ that the scan's first or last slice cuts has no end there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from inference.boxes import bounding, widened
from training.labels import IGNORE, ORGANS
from training.pack import Scan, find_scans, read_scan
from training.packed import LOW, STEP

FAT = -20.0  # HU: below is fat
SINUS = 10.0  # mm: what a ball of this radius does not get into from outside is within a kidney's hollow
BRIGHT = 40.0  # HU above an organ's median: vessels, where they are enhanced

Measure = Callable[[np.ndarray, np.ndarray, Sequence[float]], float | None]  # of labels, HU (z, y, x), spacing mm


def _slices(label: np.ndarray, organ: str) -> np.ndarray:
    return np.flatnonzero((label == ORGANS[organ]).any((1, 2)))


def cava_above_liver(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """mm from the highest slice of the liver up to that of the vena cava."""
    cava, liver = _slices(label, "inferior_vena_cava"), _slices(label, "liver")
    if not len(cava) or not len(liver) or max(cava[-1], liver[-1]) >= len(label) - 2:
        return None
    return float((cava[-1] - liver[-1]) * spacing[0])


def esophagus_below_contact(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """mm from the highest slice in which esophagus and stomach touch down to the lowest of the esophagus."""
    esophagus, stomach = label == ORGANS["esophagus"], label == ORGANS["stomach"]
    contact = np.flatnonzero((binary_dilation(esophagus, np.ones((3, 3, 3))) & stomach).any((1, 2)))
    if not len(contact) or esophagus[0].any():
        return None
    return float((contact[-1] - _slices(label, "esophagus")[0]) * spacing[0])


def duodenum_left_of_aorta(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """mm from the aorta's left edge to the duodenum's, in the slice in which the duodenum reaches farthest left."""
    both = np.intersect1d(_slices(label, "duodenum"), _slices(label, "aorta"))
    if not len(both):
        return None
    edge, z = max((np.flatnonzero((label[z] == ORGANS["duodenum"]).any(0))[-1], z) for z in both)
    return float((edge - np.flatnonzero((label[z] == ORGANS["aorta"]).any(0))[-1]) * spacing[2])


def kidney_fat(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """Share of the kidneys' voxels that are fat."""
    kidneys = np.isin(label, (ORGANS["left_kidney"], ORGANS["right_kidney"]))
    return float((hu[kidneys] < FAT).mean()) if kidneys.any() else None


def sinus_fat_in_kidney(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """Share of the fat in the kidneys' hollows that is called kidney, of kidneys that are wholly in view."""
    return _of_sinus(label, hu < FAT, spacing)


def sinus_tissue_in_kidney(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """The same of what is darker than 40 HU there and no fat: pelvis, and vessels without contrast medium."""
    return _of_sinus(label, (hu >= FAT) & (hu < 40), spacing)


def _of_sinus(label: np.ndarray, tissue: np.ndarray, spacing: Sequence[float]) -> float | None:
    inside = total = 0
    for code in (ORGANS["left_kidney"], ORGANS["right_kidney"]):
        own = bounding(label == code)
        if own is None or own[0].start == 0 or own[0].stop == len(label):
            continue
        box = widened(own, int(2 * SINUS / min(spacing)) + 1)
        kidney = label[box] == code
        grown = distance_transform_edt(~kidney, sampling=spacing) <= SINUS
        hollow = distance_transform_edt(grown, sampling=spacing) > SINUS
        there = hollow & tissue[box] & (label[box] != IGNORE) & (kidney | (label[box] == 0))
        inside, total = inside + int((there & kidney).sum()), total + int(there.sum())
    return inside / total if total else None


def pancreas_bright(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """Share of the pancreas that is BRIGHT: splenic and mesenteric veins."""
    inside = hu[label == ORGANS["pancreas"]]
    return float((inside > np.median(inside) + BRIGHT).mean()) if len(inside) else None


def adrenal_ml(label: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> float | None:
    """Mean volume of the adrenal glands in view."""
    found = [n for side in ("left", "right") if (n := (label == ORGANS[f"{side}_adrenal_gland"]).sum())]
    return float(np.mean(found) * np.prod(spacing) / 1000) if found else None


MEASURES: tuple[Measure, ...] = (
    cava_above_liver,
    esophagus_below_contact,
    duodenum_left_of_aorta,
    kidney_fat,
    sinus_fat_in_kidney,
    sinus_tissue_in_kidney,
    pancreas_bright,
    adrenal_ml,
)


def measured(scans: Sequence[Scan]) -> dict[str, list[float]]:
    """By measure, its values in the scans in which it can be taken. Raises ValueError as `read_scan`."""
    found: dict[str, list[float]] = {measure.__name__: [] for measure in MEASURES}
    for scan in scans:
        read = read_scan(scan)
        hu = read.codes * STEP + LOW
        for measure in MEASURES:
            if (value := measure(read.label, hu, read.spacing)) is not None:
                found[measure.__name__].append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="as for training.pack")
    parser.add_argument("--corrections", type=Path, metavar="JSON", help="of labels, see training.corrections")
    arguments = parser.parse_args()
    try:
        found = measured(find_scans(arguments.data, arguments.corrections))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for name, values in found.items():
        if values:
            low, middle, high = np.percentile(values, (10, 50, 90))
            print(f"{name}: {middle:.3g} ({low:.3g} to {high:.3g}) in {len(values)} scans")


if __name__ == "__main__":
    main()
