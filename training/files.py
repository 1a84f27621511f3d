"""Folders of scans X_0000.nii.gz and label maps X.nii.gz, and how their axes lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from inference.names import case_of

ENDING = ".nii.gz"


def scan_file(folder: Path, case: str) -> Path:
    """FOLDER/X_0000.nii.gz."""
    return folder / f"{case}_0000{ENDING}"


def scans_of(folder: Path) -> dict[str, Path]:
    """Case -> scan, of all X_0000.nii.gz in a folder, sorted."""
    return {case_of(path.name): path for path in sorted(folder.glob(f"*_0000{ENDING}"))}


def label_maps_of(folder: Path) -> dict[str, Path]:
    """Case -> label map, of all X.nii.gz in a folder, sorted."""
    return {path.name.removesuffix(ENDING): path for path in sorted(folder.glob(f"*{ENDING}"))}


def load_pair(scan: Path, labels: Path) -> tuple[Any, Any]:
    """Both as images of nibabel. Raises ValueError if the labels do not lie on the scan's grid."""
    image, label = nib.load(scan), nib.load(labels)
    if image.shape != label.shape or not np.allclose(image.affine, label.affine, atol=1e-3):
        raise ValueError(f"{labels} does not lie on the grid of {scan}")
    return image, label


def lps_array(image: Any) -> tuple[np.ndarray, tuple[float, float, float]]:
    """An image's voxels (z, y, x), LPS, and their spacing, mm (z, y, x)."""
    turned = to_lps(image)
    x, y, z = (float(step) for step in turned.header.get_zooms())
    return np.asarray(turned.dataobj).T, (z, y, x)


def to_lps(image: Any) -> Any:
    """The image with its axes turned and flipped to LPS: nnU-Net takes arrays as they are stored."""
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(("L", "P", "S")))
    return image.as_reoriented(turn)
