"""Whether a scan lies as its header says, on a trunk drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inference.anatomy.orientation import AXES, EXCHANGED, judge, rightly, speaks_for_its_header
from inference.anatomy.thin import Thin, thinned
from inference.labels import BY_KEY
from inference.scan import Grid, turn, turned

from .made import BOXES, SPACING, thin, trunk

NAMES = {BY_KEY[key].value: key for key in BOXES}


def test_a_scan_that_lies_as_its_header_says_is_not_doubted() -> None:
    assert judge(thin(*trunk())) is None
    assert speaks_for_its_header(thin(*trunk()))


def test_what_nobody_can_tell_does_not_speak_for_the_header() -> None:
    hu, labels = trunk()
    hu[hu == 400] = 50  # no bone
    assert judge(thin(hu, labels)) is None
    assert not speaks_for_its_header(thin(hu, labels))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_axes_that_run_the_other_way_are_named(axes: tuple[int, ...]) -> None:
    verdict = judge(thin(*(np.flip(array, axes) for array in trunk())))
    assert verdict is not None and verdict.turned == tuple(AXES[axis] for axis in axes)
    assert verdict.certain and verdict.text.startswith("the scan seems to lie ")


def test_labels_alone_where_organs_usually_are_do_not_speak_for_the_header() -> None:
    hu, labels = trunk()
    verdict = judge(thin(np.flip(hu, 1), labels))
    assert verdict is not None and verdict.turned == ("front-back",)


def test_a_liver_called_spleen_makes_a_mirrored_scan_certain() -> None:
    hu, labels = trunk()
    mirrored = np.flip(hu, 2)
    verdict = judge(thin(mirrored, np.where(labels == 1, 0, labels)))
    assert verdict is not None and verdict.turned == ("left-right",) and verdict.certain
    assert "is larger than the liver (0 ml)" in verdict.text
    faint = judge(thin(mirrored, labels))
    assert faint is None  # a liver of 972 ml on the right, and a spleen of 100 on the left, speak for the header


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1)])
def test_exchanged_axes_are_found_and_never_certain(axes: tuple[int, int, int]) -> None:
    verdict = judge(thin(*(array.transpose(axes) for array in trunk())))
    assert verdict is not None and verdict.turned == (EXCHANGED,) and not verdict.certain


@pytest.mark.parametrize("keep", [["liver", "spleen", "stomach"], []])
def test_networks_that_show_no_abdomen_are_not_heard(keep: list[str]) -> None:
    hu, labels = (np.flip(array, 0) for array in trunk())
    assert judge(Thin(hu, labels, SPACING, {key: BY_KEY[key].value for key in keep})) is None
    assert judge(thin(hu, np.zeros_like(labels))) is None


def test_the_neck_above_the_lungs_is_no_abdomen() -> None:
    hu, labels = (array[32:] for array in trunk())
    hu = np.concatenate([hu, np.repeat(hu[:1], 40, axis=0)])
    neck = np.concatenate([labels, np.zeros((40, *labels.shape[1:]), np.uint8)])
    assert judge(thin(hu, neck)) is None


def test_a_slab_is_not_judged() -> None:
    hu, labels = (np.flip(array, 1)[16:] for array in trunk())  # 170 mm
    assert judge(thin(hu, labels)) is not None
    assert judge(thin(hu[:19], labels[:19])) is None


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLA"])
def test_a_scan_is_judged_in_the_patients_directions_and_turned_rightly(orientation: str) -> None:
    axes, flips = turn("RAS", orientation)
    hu, labels = (np.ascontiguousarray(turned(array, axes, flips)) for array in trunk())
    grid = Grid.of(hu.shape, SPACING, orientation)
    assert judge(Thin.of(thinned(hu, grid), labels, grid, NAMES)) is None
    wrong = Grid(grid.shape, np.diag([-1.0, 1.0, -1.0, 1.0]) @ grid.affine, said=SPACING)
    verdict = judge(Thin.of(thinned(hu, wrong), labels, wrong, NAMES))
    assert verdict is not None and verdict.turned == ("head-feet", "left-right")
    assert rightly(wrong, verdict).orientation == orientation
    assert np.array_equal(rightly(wrong, verdict).affine, grid.affine)
    assert rightly(wrong, verdict).said == SPACING


def test_a_finer_scan_is_thinned() -> None:
    hu, labels = (array.repeat(2, 0).repeat(5, 1).repeat(5, 2) for array in trunk())
    grid = Grid.of(hu.shape, (2.5, 1.0, 1.0), "RAS")
    scan = Thin.of(thinned(hu, grid), labels, grid, NAMES)
    assert scan.hu.shape == (50, 50, 70) and scan.spacing == (5.0, 5.0, 5.0)
    assert scan.ml == pytest.approx({key: float((trunk()[1] == BY_KEY[key].value).sum()) / 8 for key in BOXES})
