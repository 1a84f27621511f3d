"""Pictures and volumes of a scan and its labels, wherever its file begins."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

from inference.errors import UnwrittenError
from inference.labels import BY_VALUE, structures
from inference.preview import folder, png
from inference.preview.lying import lie, richest
from inference.preview.picture import picture, small_picture
from inference.preview.volume import MOST_VOXELS, averaged, script, thinning
from inference.scan import Grid

SPACING = (4.0, 1.0, 2.0)
WINDOW = (-160.0, 240.0)
LIVER, AORTA = (np.array(BY_VALUE[value].colour) for value in (1, 5))
COLOURS = {value: BY_VALUE[value].colour for value in (1, 5)}


@pytest.fixture
def patient() -> tuple[np.ndarray, np.ndarray]:
    """HU and labels in LPS, so (z, y, x) is (foot to head, front to back, right to left): liver on the right at the
    head, aorta at the back; the front half is brighter.
    """
    labels = np.zeros((20, 60, 40), np.uint8)
    labels[12:18, 10:40, 4:20] = 1
    labels[:, 46:52, 18:22] = 5
    hu = np.zeros(labels.shape, np.int16)
    hu[:, :30] = 200
    return hu, labels


def stored(array: np.ndarray, orientation: str) -> np.ndarray:
    """LPS voxels (z, y, x) as a file has them whose axes x, y, z run towards `orientation`."""
    order, flips = [], []
    for letter in reversed(orientation):
        axis = next(at for at, pair in enumerate(("SI", "PA", "LR")) if letter in pair)
        order.append(axis)
        flips.append(slice(None, None, 1 if letter in "SPL" else -1))
    return np.ascontiguousarray(array.transpose(order)[tuple(flips)])


def grid_of(orientation: str) -> Grid:
    spacing = [SPACING[next(at for at, pair in enumerate(("SI", "PA", "LR")) if letter in pair)]
               for letter in reversed(orientation)]  # fmt: skip
    return Grid.of(stored(np.empty((20, 60, 40)), orientation).shape, spacing, orientation)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 31)])
def test_a_png_holds_its_pixels(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    assert (np.rint(255 * matplotlib.image.imread(io.BytesIO(png.encode(pixels)))) == pixels).all()


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR", "IRP", "PIL"])
def test_the_picture_does_not_depend_on_how_the_file_is_stored(
    patient: tuple[np.ndarray, np.ndarray], orientation: str
) -> None:
    shown = [
        picture(lie(stored(patient[0], way), stored(patient[1], way), grid_of(way)), COLOURS, WINDOW)
        for way in ("LPS", orientation)
    ]
    assert shown[0].shape == shown[1].shape and np.abs(shown[0].astype(int) - shown[1]).max() <= 1


def test_the_planes_are_those_of_radiologists(patient: tuple[np.ndarray, np.ndarray]) -> None:
    """80 mm wide, 60 deep and 80 high, so at 420 pixels 5.25 for a mm."""
    shown = picture(lie(*patient, grid_of("LPS")), COLOURS, WINDOW).astype(int)
    assert shown.shape == (420, 420 + 6 + 420 + 6 + 315, 3)
    axial, coronal, sagittal = shown[52:367, :420], shown[:, 426:846], shown[:, 852:]
    reddish = [plane[..., 0] - plane[..., 2] > 25 for plane in (axial, coronal, sagittal)]
    for plane, rows, columns in (
        (reddish[0], slice(60, 205), slice(45, 200)),
        (reddish[1], slice(45, 165), slice(45, 200)),
    ):
        assert plane[rows, columns].mean() > 0.95  # the liver: in front, at the head, on the patient's right, left here
        assert plane[:, 250:].mean() < 0.05
    assert reddish[2][45:165, 60:200].mean() > 0.95
    assert axial[:150, 300:400].mean() > axial[170:, 300:400].mean() + 80  # the front, brighter, is above
    # Outlined with the whole colour, filled with part of it.
    outlined = (shown == LIVER).all(axis=-1)
    assert 500 < outlined.sum() < 5000
    grey = (200 + 160) / 400 * 255
    inside = np.rint(0.65 * grey + 0.35 * LIVER)
    assert np.abs(axial[100, 100] - inside).max() <= 1


@pytest.mark.parametrize(("across", "mm", "pixels"), [(2.0, 20, 105), (5.0, 50, 105)])
def test_the_scale_has_its_length(across: float, mm: int, pixels: int) -> None:
    """A cube of 40 voxels; the scale is the longest that takes a third at most."""
    nothing = np.zeros((40, 40, 40), np.uint8)
    grid = Grid.of(nothing.shape, (across,) * 3, "LPS")
    shown = picture(lie(nothing.astype(np.int16) - 1000, nothing, grid), {}, WINDOW)
    line = (shown[415, :420] == 235).all(axis=-1)
    assert line.sum() == pixels and np.flatnonzero(line)[[0, -1]].tolist() == [4, 3 + pixels]
    assert pixels == round(mm * 420 / (40 * across))


def test_planes_show_as_many_labels_as_they_can() -> None:
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[2, 2:10, 2:12] = 1  # the larger one alone
    labels[6, 2:8, 2:8] = 1
    labels[6, 4:10, 8:12] = 5
    assert richest(labels)[0] == 6
    assert richest(np.zeros_like(labels)) == [5, 6, 7]


def test_a_thumbnail_is_small(patient: tuple[np.ndarray, np.ndarray]) -> None:
    noise = np.random.default_rng(1).normal(0, 20, patient[0].shape)
    shown = small_picture(lie(patient[0] + noise, patient[1], grid_of("LPS")), COLOURS, WINDOW)
    assert max(shown.shape) < 300 and len(png.encode(shown)) < 20_000


def volume(data: bytes) -> tuple[dict[str, Any], list[nib.Nifti1Image]]:
    text = data.decode()
    assert text.startswith("viscera(") and text.endswith(")\n")
    document = json.loads(text[len("viscera(") : -2])
    images = [nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(document[name]))) for name in ("scan", "map")]
    return document, images


@pytest.mark.parametrize("orientation", ["LPS", "IRP"])
def test_a_volume_lies_where_the_scan_does(patient: tuple[np.ndarray, np.ndarray], orientation: str) -> None:
    hu, labels = (stored(one, orientation) for one in patient)
    grid = grid_of(orientation)
    document, (scan, found) = volume(script(hu, labels, grid, structures({1: "liver", 5: "aorta"}), WINDOW, True))
    assert document["block"] == [1, 1, 1] and document["window"] == list(WINDOW)
    assert np.allclose(scan.affine, grid.affine) and np.allclose(found.affine, grid.affine)
    assert (np.asarray(found.dataobj) == labels.transpose(2, 1, 0)).all()
    assert np.abs(np.asarray(scan.dataobj) - hu.transpose(2, 1, 0)).max() <= 4
    for value, name, colour, place in document["labels"]:
        assert (name, tuple(colour)) == (BY_VALUE[value].title, BY_VALUE[value].colour)
        x, y, z = np.rint(np.linalg.solve(grid.affine, [*place, 1])[:3]).astype(int)
        assert labels[z, y, x] == value


def test_a_large_scan_becomes_small_and_stays_in_place() -> None:
    grid = Grid.of((30, 500, 510), (5.0, 0.7, 0.7), "LPS")
    steps = thinning(grid)
    assert steps == [1, 2, 2]
    ramp = np.broadcast_to(np.arange(510, dtype=np.int16), grid.shape)
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, :, 100:] = 1
    document, (scan, found) = volume(script(ramp, labels, grid, structures({1: "liver"}), WINDOW, True))
    assert scan.shape == found.shape == (255, 250, 30) and np.prod(scan.shape) <= MOST_VOXELS
    middle = scan.affine @ [100, 50, 10, 1]
    assert np.allclose(middle, grid.affine @ [200.5, 100.5, 10, 1])
    assert np.abs(np.asarray(scan.dataobj)[:, 0, 0] - (2 * np.arange(255) + 0.5)).max() <= 4
    assert np.asarray(found.dataobj)[:, 0, 0].tolist() == [0] * 50 + [1] * 205
    assert len(document["scan"]) < 500_000


@pytest.mark.parametrize(("planes", "steps"), [(1, [1, 2, 2]), (3, [2, 2, 2]), (5000, [23, 23, 23])])
def test_of_a_few_planes_some_are_left(planes: int, steps: list[int]) -> None:
    assert thinning(Grid.of((planes, 3000, 3000), (1.0, 1.0, 1.0), "LPS")) == steps


def test_means_of_blocks() -> None:
    voxels = np.arange(2 * 5 * 6, dtype=np.int16).reshape(2, 5, 6)
    small = averaged(voxels, (2, 2, 3))
    assert small.shape == (1, 2, 2)
    assert small[0, 1, 1] == voxels[:, 2:4, 3:6].mean()


def test_another_image_than_ct_keeps_its_range() -> None:
    image = np.linspace(3000, 9000, 8 * 9 * 10).reshape(8, 9, 10).astype(np.float32)
    grid = Grid.of(image.shape, (1, 1, 1), "LPS")
    _, (scan, _) = volume(script(image, np.zeros(image.shape, np.uint8), grid, (), (3000, 9000), False))
    assert np.abs(np.asarray(scan.dataobj) - image.transpose(2, 1, 0)).max() < 6000 / 255


def test_a_preview_is_the_same_folder_each_time_or_none(patient: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    hu, labels = patient
    names = {1: "liver", 5: "aorta"}
    path = tmp_path / "x.preview"
    first = folder.write(path, hu, True, labels, grid_of("LPS"), names)
    assert sorted(one.name for one in path.iterdir()) == ["picture.png", "thumbnail.png", "volume.js"]
    document, _ = volume((path / "volume.js").read_bytes())
    assert [one[1] for one in document["labels"]] == ["liver", "aorta"]
    assert folder.write(path, hu, True, labels, grid_of("LPS"), names) == first
    with pytest.raises(UnwrittenError, match=r"x\.preview cannot be written: No such file or directory"):
        folder.write(tmp_path / "gone" / "x.preview", hu, True, labels, grid_of("LPS"), names)
    assert [one.name for one in tmp_path.iterdir()] == ["x.preview"]
