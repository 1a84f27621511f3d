"""A tumour that is darker than its organ, outlined from one point in it, for scans that nobody has labelled.

    python -m training.labelling.outline SCAN LABELS --point X,Y,Z --below HU --organ 1

changes the pseudo-labels LABELS: of what is the organ, or has no label that is sure, that piece becomes tumour which
holds the voxel X,Y,Z (as the file counts) and is darker than HU once noise is smoothed away. Its holes are filled,
vessels among them. Where to point and how dark is for a person to judge, and to look at the result: no radiologist
stands behind such a label.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from training.files import load_pair
from training.labels import IGNORE, TUMOR

SMOOTH = 2.5  # mm: the sigma that takes the noise away
OPEN = 8.0  # mm: what hangs on by a thinner bridge is no part of it
SURROUND = 6.0  # mm around it in which nothing is sure
LEAST_HU = 0.0  # of a tumour: below is fat


def outlined(
    hu: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, ...],
    point: tuple[int, ...],
    below: float,
    organ: int,
) -> np.ndarray:
    """`labels` with the tumour in them; arrays and `point` in the same axis order, `spacing` in mm.

    Raises ValueError where the point is not in the organ or not dark enough.
    """
    mm = np.array(spacing)
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), SMOOTH / mm)
    dark = ((labels == organ) | (labels == IGNORE)) & (smooth < below) & (smooth > LEAST_HU)
    core = ndimage.distance_transform_edt(dark, mm) > OPEN
    pieces, _ = ndimage.label(core)
    if not pieces[point]:
        raise ValueError(f"voxel {point} with {smooth[point]:.0f} HU is not well inside a part of label {organ} "
                         f"between {LEAST_HU:g} and {below:g} HU")  # fmt: skip
    grown = (ndimage.distance_transform_edt(pieces != pieces[point], mm) <= OPEN + 1) & dark
    tumour = ndimage.binary_fill_holes(grown)
    near = ndimage.distance_transform_edt(~tumour, mm) <= SURROUND
    result = labels.copy()
    result[near & ~tumour & np.isin(labels, (0, organ)) & (hu > -20)] = IGNORE
    result[tumour] = TUMOR
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("labels", type=Path, help="pseudo-labels on the scan's grid; written anew")
    parser.add_argument("--point", required=True, metavar="X,Y,Z", help="a voxel well inside the tumour")
    parser.add_argument("--below", type=float, required=True, metavar="HU", help="between the tumour and its organ")
    parser.add_argument("--organ", type=int, default=1, help="label that the tumour lies in")
    arguments = parser.parse_args()
    try:
        point = tuple(int(n) for n in arguments.point.split(","))
        scan, image = load_pair(arguments.scan, arguments.labels)
        hu, known = np.asarray(scan.dataobj), np.asarray(image.dataobj, np.uint8)
        labels = outlined(hu, known, image.header.get_zooms(), point, arguments.below, arguments.organ)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    nib.save(nib.Nifti1Image(labels, image.affine, image.header), arguments.labels)
    print(f"{arguments.labels}: {(labels == TUMOR).sum() * np.prod(image.header.get_zooms()) / 1000:.0f} ml of tumour")


if __name__ == "__main__":
    main()
