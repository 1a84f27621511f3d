"""Slices of a tilted gantry: the patient stands upright for the networks, and labels lie in the slices' own voxels."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference.formats.probabilities import Probabilities
from inference.formats.reading import read_scan
from inference.model import Quiet
from inference.options import DENSE
from inference.record import Record
from inference.scan import Grid, Scan, shear
from inference.segment import segment
from inference.tilt import Tilt
from tests.inference.dicom import series
from tests.inference.test_segment import model


def ball(grid: Grid) -> np.ndarray:
    """HU (z, y, x) of a ball of 40 mm in air, in the middle of a grid."""
    z, y, x = np.indices(grid.shape)
    world = np.stack([x, y, z, np.ones_like(x)], axis=-1) @ grid.affine.T
    middle = grid.affine @ [*((n - 1) / 2 for n in grid.shape[::-1]), 1]
    return np.where(((world - middle)[..., :3] ** 2).sum(-1) < 40**2, 60, -1000).astype(np.int16)


@pytest.mark.parametrize("degrees", [-30, -12, 1, 20, 30])
@pytest.mark.parametrize("letters", ["LPS", "RAS", "RPI"])
def test_the_patient_stands_upright_and_no_voxel_is_lost(degrees: float, letters: str) -> None:
    grid = Grid.of((40, 64, 48), (3, 2, 2), letters)
    affine = grid.affine.copy()
    affine[:3, 2] += affine[:3, 1] / 2 * 3 * np.tan(np.radians(degrees))
    tilted = Scan((ball(Grid(grid.shape, affine)),), Grid(grid.shape, affine), tilted=True)
    tilt = Tilt.of(tilted.grid)
    upright = tilt.upright(tilted)
    assert shear(upright.grid) < 1e-6 and not upright.tilted and upright.grid.orientation == letters
    assert np.array_equal(tilt.back(upright.voxels), tilted.voxels)
    assert (upright.voxels > 0).sum() == (tilted.voxels > 0).sum()
    for scan in (tilted, upright):  # and it lies where it lay, to half a voxel
        inside = np.argwhere(scan.voxels > 0)[:, ::-1].mean(axis=0)
        where = scan.grid.affine @ [*inside, 1]
        middle = tilted.grid.affine @ [*((n - 1) / 2 for n in grid.shape[::-1]), 1]
        assert np.abs(where - middle).max() < 1


def test_labels_and_probabilities_go_back_to_the_tilted_slices(tmp_path: Path) -> None:
    grid = Grid.of((40, 64, 64), (3, 2, 2), "LPS")
    affine = grid.affine.copy()
    affine[:3, 2] += [0, -3 * np.tan(np.radians(25)), 0]
    hu = ball(Grid(grid.shape, affine))
    scan = Scan((hu,), Grid(grid.shape, affine), tilted=True, checked=True, once=True)
    network = model("organ", 0, (0, 1))
    with closing(Probabilities([network.card], tmp_path)) as probabilities:
        labels = segment(scan, [network], [DENSE], np, Record(), Quiet(), probabilities)
        assert scan.channels == ()  # freed
        (tmp_path / "out").mkdir()
        probabilities.write(tmp_path / "out" / "x.probabilities", scan)
    assert labels.shape == hu.shape
    assert ((labels > 0) != (hu > 0)).sum() < 0.1 * (hu > 0).sum()  # the network has another spacing
    (file,) = (tmp_path / "out" / "x.probabilities").iterdir()
    image = nib.load(file)
    assert np.allclose(image.affine, affine, atol=1e-4)
    likely = np.asarray(image.dataobj).transpose(2, 1, 0) > 0.5
    assert (likely != (labels > 0)).mean() < 1e-3


def test_a_tilted_series_of_dicom_is_one(tmp_path: Path) -> None:
    hu = ball(Grid.of((10, 12, 14), (10, 8, 8), "LPS"))
    hu += np.arange(14, dtype=np.int16)
    along = f"1\\0\\0\\0\\{np.cos(0.3):.9f}\\{-np.sin(0.3):.9f}"
    series(tmp_path / "s", hu, lambda z: {"ImageOrientationPatient": along})
    scan = read_scan(tmp_path / "s")
    assert scan.tilted and any("moved upright" in warning for warning in scan.warnings)
    series(tmp_path / "t", hu)
    assert not read_scan(tmp_path / "t").tilted
