"""Pseudo-labels from weak teachers.

    python -m training.labelling.weak_labels TEACHERS... --scans DIR --out DIR

Teachers are folders of exported networks, such as snapshots of one run. What they agree on is kept, by the rules of
training.labelling.votes and three more, since a weak teacher is wrong in pieces. A voxel on which they do not all agree
is ignored; but organs that are learned late are found in part, so that most teachers are enough for one of these, and
what lies NEAR to it is not known to be background. A piece of an organ apart from its largest is ignored; more than
FAR from it, it is background. Pieces are those of the vote: an aorta that one teacher has lost halfway is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from inference.names import labels_file
from training.labelling.votes import segmented, trusted
from training.labels import IGNORE, ORGANS, RARE, TUMOR

FAR = 15.0  # mm: what lies farther from an organ is no part of it, which the network is then taught
NEAR = 6.0  # mm


def agreed(maps: Sequence[np.ndarray], spacing: Sequence[float], keep: float) -> np.ndarray:
    """What teachers' label maps (x, y, z) agree on, uint8, IGNORE where they do not; spacing in mm."""
    labels, _, _ = trusted(maps, keep, IGNORE)
    same = sum((one == labels).astype(np.uint8) for one in maps)
    late = [code for code in RARE if code != TUMOR]
    enough = np.where(np.isin(labels, late), len(maps) // 2 + 1, len(maps))
    doubtful = same < enough
    for organ in ORGANS.values():
        for box in ndimage.find_objects((labels == organ).astype(np.uint8)):  # one box around all pieces
            part = labels[box]
            pieces, _ = ndimage.label(part == organ)
            largest = pieces == 1 + np.bincount(pieces.reshape(-1))[1:].argmax()
            rest = (part == organ) & ~largest
            far = ndimage.distance_transform_edt(~largest, spacing) > FAR
            part[rest & far], part[rest & ~far] = 0, IGNORE
    labels[doubtful] = IGNORE
    rare = np.isin(labels, late)
    if rare.any():
        labels[(labels == 0) & (ndimage.distance_transform_edt(~rare, spacing) <= NEAR)] = IGNORE
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, nargs="+", help="folders of exported networks")
    parser.add_argument("--scans", type=Path, required=True, help="folder of X_0000.nii.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder for X.nii.gz")
    parser.add_argument("--keep", type=float, default=0.55, help="least agreement for a label to be trusted")
    parser.add_argument("--without", nargs="*", default=[], help="cases to leave out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for case, first, maps in segmented(arguments.teachers, arguments.scans, arguments.out / "teachers"):
        if case in arguments.without:
            continue
        labels = agreed(maps, first.header.get_zooms(), arguments.keep)
        nib.save(nib.Nifti1Image(labels, first.affine, first.header), labels_file(arguments.out, case))
        print(f"{case}: {100 * (labels == IGNORE).mean():.1f} % ignored")


if __name__ == "__main__":
    main()
