"""What is measured of labels, on shapes whose numbers are known."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from inference.labels import TABLE, is_tumor
from inference.quantities import quantities
from inference.scan import Grid, reorient

NAMES = {1: "liver", 2: "spleen", 14: "tumor"}
ORIENTATIONS = ["".join(one) for axes in permutations(("LR", "AP", "IS")) for one in product(*axes)]


def measured(labels: np.ndarray, spacing: tuple[float, ...], orientation: str = "LPS") -> dict[str, dict[str, Any]]:
    return quantities(labels.astype(np.uint8), Grid.of(labels.shape, spacing, orientation), NAMES, {})


def ball(shape: tuple[int, int, int], spacing: tuple[float, float, float], radius: float) -> np.ndarray:
    """14 within so many mm of the middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.where(z**2 + y**2 + x**2 <= radius**2, 14, 0)


def test_a_box_has_the_numbers_of_a_box() -> None:
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[3:9, 5:15, 10:30] = 1
    found = measured(labels, (5.0, 0.8, 0.7))
    assert list(found) == ["1"]
    one = found["1"]
    assert (one["name"], one["voxels"], one["edges"], one["hu"]) == ("liver", 1200, {}, {})
    assert one["ml"] == pytest.approx(6 * 10 * 20 * 5 * 0.8 * 0.7 / 1000)
    assert one["extent_mm"] == {"left-right": 14.0, "front-back": 8.0, "head-foot": 30.0}
    assert not {"pieces", "diameter"} & one.keys()


def test_an_axial_bar_is_as_long_as_its_voxels_and_a_voxel_as_one() -> None:
    labels = np.zeros((5, 30, 40), np.uint8)
    labels[2, 7, 4:24] = 14
    bar = measured(labels, (5.0, 0.8, 0.7))["14"]
    assert bar["pieces"] == 1 and bar["diameter"]["mm"] == 14.0 and bar["diameter"]["slice"] == 2
    # The middle of the voxels 4 to 23, of the row 7 and the plane 2: x and y run to the left and back, so against RAS.
    assert bar["diameter"]["position_mm"] == [round(-13.5 * 0.7, 2), round(-7 * 0.8, 2), 10.0]
    labels[:] = 0
    labels[1, 1, 1] = 14
    assert measured(labels, (5.0, 0.8, 0.7))["14"]["diameter"]["mm"] == 0.8


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.9, 0.7), (0.8, 2.0, 0.5)])
def test_a_ball_has_its_diameter_in_the_slice_of_its_middle(spacing: tuple[float, float, float]) -> None:
    one = measured(ball((61, 81, 101), spacing, 18.0), spacing)["14"]
    assert one["pieces"] == 1
    assert one["diameter"]["mm"] == pytest.approx(36.0, abs=max(spacing[1:]))  # to a voxel
    assert one["diameter"]["slice"] == 30
    assert one["ml"] == pytest.approx(4 / 3 * np.pi * 18**3 / 1000, rel=0.02)
    for mm, step in zip(one["extent_mm"].values(), spacing[::-1], strict=True):
        assert mm == pytest.approx(36.0, abs=step)


def test_the_diameter_is_the_longest_of_all_pairs() -> None:
    """Beside every pair of the middles of outer edges, on shapes without a rule."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        labels = np.zeros((3, 12, 14), np.uint8)
        labels[1] = np.where(rng.random((12, 14)) < 0.6, 14, 0)
        spacing = tuple(rng.uniform(0.5, 2, 3))
        row, column = np.nonzero(labels[1])
        y = np.concatenate([row - 0.5, row + 0.5, row, row]) * spacing[1]
        x = np.concatenate([column, column, column - 0.5, column + 0.5]) * spacing[2]
        one = measured(labels, spacing)["14"]
        if one["pieces"] == 1:
            longest = np.hypot(y[:, None] - y, x[:, None] - x).max()
            assert one["diameter"]["mm"] == pytest.approx(longest, abs=0.006)


def test_pieces_are_those_of_connected_components() -> None:
    import cc3d

    rng = np.random.default_rng(3)
    for share in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
        labels = np.where(rng.random((9, 11, 13)) < share, 14, 0).astype(np.uint8)
        count = cc3d.connected_components(labels, connectivity=26, return_N=True)[1]
        assert measured(labels, (1.0, 1.0, 1.0))["14"]["pieces"] == count


def test_a_diameter_does_not_cross_from_piece_to_piece() -> None:
    labels = np.zeros((4, 10, 40), np.uint8)
    labels[1, 2, 2:6] = 14
    labels[1, 2, 30:37] = 14
    labels[3, 2, 10:12] = 14
    one = measured(labels, (1.0, 1.0, 1.0))["14"]
    assert (one["pieces"], one["diameter"]["mm"], one["diameter"]["slice"]) == (3, 7.0, 1)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_millimetres_do_not_depend_on_how_a_scan_is_stored(orientation: str) -> None:
    labels = ball((21, 30, 41), (2.0, 0.9, 0.7), 9.0)
    labels[18:, 22:, 30:34] = 1
    labels[:2, 3:9, :5] = 2
    hu = np.random.default_rng(1).integers(-100, 300, labels.shape).astype(np.int16)
    spacing = (2.0, 0.9, 0.7)
    before = quantities(labels.astype(np.uint8), Grid.of(labels.shape, spacing, "LPS"), NAMES, {0: hu})
    turned = reorient(labels.astype(np.uint8), "LPS", orientation)
    by_axis = dict(zip("SPL", spacing, strict=True)) | dict(zip("IAR", spacing, strict=True))
    grid = Grid.of(turned.shape, [by_axis[letter] for letter in reversed(orientation)], orientation)
    after = quantities(turned, grid, NAMES, {0: reorient(hu, "LPS", orientation)})
    assert before.keys() == after.keys() == {"1", "2", "14"}
    first, last = ("first slice", "last slice") if "S" in orientation else ("last slice", "first slice")
    assert after["1"]["edges"] == {last: 32, "back edge": 12}
    assert after["2"]["edges"] == {first: 30, "right edge": 12}
    for value, one in before.items():
        other = after[value]
        for key in ("name", "voxels", "ml", "hu", "extent_mm", "pieces"):
            assert one.get(key) == other.get(key)
    assert after["14"]["diameter"]["mm"] == before["14"]["diameter"]["mm"]


def test_on_an_oblique_grid_lengths_are_those_of_the_patient() -> None:
    """A grid turned by 20 degrees about the patient's long axis, and voxels of two lengths."""
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.8, 1.2, 4.0])
    labels = np.zeros((6, 40, 40), np.uint8)
    labels[2:4, 10:20, 5:30] = 14  # 25 x 0.8 mm along x, 10 x 1.2 mm along y
    one = quantities(labels, Grid((6, 40, 40), affine), NAMES, {})["14"]
    assert one["ml"] == pytest.approx(25 * 0.8 * 10 * 1.2 * 2 * 4 / 1000)
    across, deep = 20 * np.cos(angle) + 12 * np.sin(angle), 20 * np.sin(angle) + 12 * np.cos(angle)
    assert list(one["extent_mm"].values()) == pytest.approx([across, deep, 8.0], abs=0.01)
    assert one["diameter"]["mm"] == pytest.approx(max(np.hypot(20, 9 * 1.2), np.hypot(24 * 0.8, 12)), abs=0.01)


def test_a_tilted_gantry_makes_voxels_no_larger() -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.5  # each slice half a millimetre further on
    labels = np.zeros((8, 20, 20), np.uint8)
    labels[:4, 5:15, 5:15] = 14
    one = quantities(labels, Grid((8, 20, 20), affine), NAMES, {})["14"]
    assert one["ml"] == 0.8
    assert one["extent_mm"]["front-back"] == 10 + 3 * 0.5 + 0.5


def test_a_label_at_the_edge_alone_is_measured_and_its_sides_are_named() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[0, 0, 0] = 1
    labels[-1, -1, -1] = 2
    found = measured(labels, (0.06, 0.06, 0.06))  # the smallest voxels that are read
    assert found["1"]["edges"] == {"first slice": 1, "front edge": 1, "right edge": 1}
    assert found["2"]["edges"] == {"last slice": 1, "back edge": 1, "left edge": 1}
    assert found["1"]["ml"] == pytest.approx(0.06**3 / 1000, rel=0.01)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_hounsfield_numbers_are_those_of_numpy(kind: type) -> None:
    rng = np.random.default_rng(2)
    labels = rng.choice([0, 1, 2, 7, 14], (7, 12, 11)).astype(np.uint8)  # 7 is not asked for
    hu: np.ndarray = rng.normal(60, 40, labels.shape).astype(kind)
    found = quantities(labels, Grid.of(labels.shape, (1, 1, 1), "RAS"), NAMES, {0: hu, 2: -hu})
    assert set(found) == {"1", "2", "14"}
    for value, one in found.items():
        own = hu[labels == int(value)].astype(np.float64)
        for channel, sign in (("0", 1), ("2", -1)):
            scale = one["hu"][channel]
            assert scale["mean"] == pytest.approx(sign * own.mean(), abs=0.006)
            assert scale["standard_deviation"] == pytest.approx(own.std(), abs=0.006)
            assert scale["median"] == np.median(sign * np.rint(own))


def test_values_beyond_any_scale_cost_nothing() -> None:
    labels = np.ones((4, 4, 4), np.uint8)
    hu = np.ones(labels.shape, np.float32) * np.float32(3e38)
    scale = quantities(labels, Grid.of(labels.shape, (1, 1, 1), "LPS"), NAMES, {0: hu})["1"]["hu"]["0"]
    assert scale == {"mean": 32767.0, "median": 32767.0, "standard_deviation": 0.0}


def test_names_of_tumours_are_known_in_other_words() -> None:
    assert [one.key for one in TABLE if is_tumor(one.key)] == ["tumor"]
    yes = ("tumour", "Liver tumors", "kidney-lesion", "lung_cancer", "liver metastases", "Metastasis")
    assert all(map(is_tumor, yes))
    assert not any(map(is_tumor, ("organ_1", "colon", "cyst", "")))
