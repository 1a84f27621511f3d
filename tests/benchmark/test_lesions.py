"""Tumours one by one, on boxes whose overlaps are known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("surface_distance")

from benchmark.lesions import Lesion, Lesions, rows, score_lesions, summary
from benchmark.scoring import UNKNOWN

SPACING = (2.0, 2.0, 2.5)  # 100 voxels are 1 ml
TUMOR, LIVER = 14, 1


def boxes(*parts: tuple[slice, slice, slice]) -> np.ndarray:
    """A map (40, 40, 20) of a liver with tumours."""
    made = np.full((40, 40, 20), LIVER, np.uint8)
    for part in parts:
        made[part] = TUMOR
    return made


def cube(x: int, y: int, z: int, size: int) -> tuple[slice, slice, slice]:
    return slice(x, x + size), slice(y, y + size), slice(z, z + size)


LARGE, SMALL = cube(2, 2, 2, 12), cube(30, 30, 4, 5)  # 17.28 and 1.25 ml


def test_the_same_tumours_are_found_as_they_are() -> None:
    scored = score_lesions(boxes(LARGE, SMALL), boxes(LARGE, SMALL), SPACING)
    assert [one.ml for one in scored.reference] == pytest.approx([17.28, 1.25])
    assert [(one.iou, one.found) for one in scored.reference] == [(1.0, True)] * 2
    assert not scored.false_ml


def test_a_tumour_is_found_from_a_tenth_of_overlap_on() -> None:
    reference = boxes((slice(0, 20), slice(0, 10), slice(0, 10)))  # 2000 voxels
    for voxels, found in ((200, True), (199, False)):
        prediction = boxes()
        inside = np.argwhere(reference == TUMOR)[:voxels]
        prediction[tuple(inside.T)] = TUMOR
        scored = score_lesions(prediction, reference, SPACING)
        assert scored.reference[0].iou == pytest.approx(voxels / 2000)
        assert scored.reference[0].found is found
        assert list(scored.false_ml) == pytest.approx([] if found else [1.99]), "too little to be it is false"


def test_what_is_elsewhere_is_false_and_what_is_missed_is_not_found() -> None:
    scored = score_lesions(boxes(LARGE, cube(30, 2, 2, 4)), boxes(LARGE, SMALL), SPACING)
    assert [one.found for one in scored.reference] == [True, False]
    assert list(scored.false_ml) == pytest.approx([0.64])


def test_one_piece_may_be_two_tumours_and_a_huge_one_over_a_small_one_is_false() -> None:
    two = boxes((slice(0, 10), slice(0, 10), slice(0, 10)), (slice(11, 16), slice(0, 10), slice(0, 10)))
    one = boxes((slice(0, 16), slice(0, 10), slice(0, 10)))
    scored = score_lesions(one, two, SPACING)
    assert [lesion.iou for lesion in scored.reference] == pytest.approx([1000 / 1600, 500 / 1600])
    assert not scored.false_ml
    scored = score_lesions(boxes((slice(0, 40), slice(0, 40), slice(0, 10))), boxes(SMALL), SPACING)
    assert not scored.reference[0].found and list(scored.false_ml) == pytest.approx([160.0])


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    touching = boxes(cube(0, 0, 0, 4), cube(4, 4, 4, 4))
    assert len(score_lesions(touching, touching, SPACING).reference) == 1


def test_what_nobody_can_tell_counts_nowhere_and_makes_no_second_tumour() -> None:
    reference = boxes()
    reference[cube(2, 2, 2, 14)] = UNKNOWN  # a rim of two voxels
    reference[cube(4, 4, 4, 10)] = TUMOR
    wide = boxes(cube(1, 1, 1, 16))  # reaches over the rim on all sides
    scored = score_lesions(wide, reference, SPACING)
    shell = 16**3 - 14**3
    assert [(one.ml, one.iou) for one in scored.reference] == [pytest.approx((10.0, 1000 / (1000 + shell)))]
    assert not scored.false_ml
    assert score_lesions(boxes(cube(2, 2, 2, 2)), reference, SPACING).false_ml == (), "it lies in the rim"


def test_a_scan_without_a_tumour_has_only_false_ones() -> None:
    empty = score_lesions(boxes(), boxes(), SPACING)
    assert empty == Lesions((), ())
    assert summary([empty])["sensitivity"] is None and summary([empty])["false_a_case"] == 0
    assert summary([])["false_a_case"] is None
    false = score_lesions(boxes(LARGE, SMALL), boxes(), SPACING)
    assert not false.reference and list(false.false_ml) == pytest.approx([17.28, 1.25])


def test_all_cases_together_with_the_large_apart() -> None:
    cases = {
        "a": Lesions((Lesion(17.3, 0.6), Lesion(12.0, 0.05), Lesion(1.0, 0.3)), (0.5,)),
        "b": Lesions((), (30.0, 0.3)),
    }
    assert summary(cases.values()) == {
        "cases": 2,
        "lesions": 3,
        "found": 2,
        "sensitivity": pytest.approx(2 / 3),
        "lesions_large": 2,
        "found_large": 1,
        "sensitivity_large": 0.5,
        "false_a_case": 1.5,
        "false_large_a_case": 0.5,
        "false_ml_a_case": pytest.approx(15.4),
    }
    assert rows(cases) == [
        ["tumours", "found", "found, over 10 ml", "false", "false, over 10 ml", "false ml"],
        ["a", "2 of 3", "1 of 2", "1", "0", "0.5"],
        ["b", "0 of 0", "0 of 0", "2", "1", "30.3"],
        ["a scan, of all", "2 of 3", "1 of 2", "1.5", "0.5", "15.4"],
    ]
