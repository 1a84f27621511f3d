"""Scans as training reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from training.files import lps_array, to_lps


def test_every_orientation_becomes_lps(blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path) -> None:
    image = nib.load(save_scan(tmp_path / "a.nii.gz", blob, (3.0, 2.0, 2.0), "LPS"))
    turned = nib.load(save_scan(tmp_path / "b.nii.gz", blob[:, ::-1, ::-1], (3.0, 2.0, 2.0), "RAS"))
    assert nib.aff2axcodes(to_lps(turned).affine) == ("L", "P", "S")
    assert np.array_equal(to_lps(turned).dataobj, image.dataobj)
    array, spacing = lps_array(turned)
    assert np.array_equal(array, blob) and spacing == (3.0, 2.0, 2.0)
