"""The body mask on volumes whose answer is known: values are 1 in tissue, -5 in air and lung, 0 divides them."""

from __future__ import annotations

import numpy as np

from inference.anatomy import body
from inference.anatomy.body import CELL, MARGIN, body_box, muscle_box

AIR, TISSUE = -5.0, 1.0
SPACING = (4.0, 2.0, 2.0)
EDGE = int(1.5 * CELL / SPACING[1])


def body_mask(volume: np.ndarray) -> np.ndarray:
    return body.body_mask(volume, 0.0, SPACING, np)


def torso() -> np.ndarray:
    """(10, 100, 120): a trunk with two lungs in it."""
    volume = np.full((10, 100, 120), AIR, np.float32)
    volume[:, 20:70, 20:100] = TISSUE
    volume[:, 30:60, 30:55] = volume[:, 30:60, 65:90] = AIR
    return volume


def test_the_body_holds_its_lungs_and_no_air_around() -> None:
    mask = body_mask(torso())
    assert mask[:, 22:68, 22:98].all()  # a cell that is half air is none of the body's
    assert not mask[:, : 20 - EDGE].any() and not mask[:, 70 + EDGE :].any()
    assert not mask[:, :, : 20 - EDGE].any() and not mask[:, :, 100 + EDGE :].any()


def test_a_board_that_touches_is_cut_off() -> None:
    volume = torso()
    volume[:, 70:74, 5:115] = TISSUE  # the cover of the table
    mask = body_mask(volume)
    assert not mask[:, :, : 20 - EDGE].any() and not mask[:, :, 100 + EDGE :].any()


def test_what_does_not_hang_together_with_the_body_is_left_out() -> None:
    volume = torso()
    volume[:, 85:97, 30:90] = TISSUE  # a thick bar under the patient
    assert not body_mask(volume)[:, 70 + EDGE :].any()


def test_a_body_cut_by_the_field_of_view_keeps_its_edge() -> None:
    mask = body_mask(torso()[:, 20:70, 20:100])
    assert mask.all()


def test_a_volume_without_a_body_is_kept_whole() -> None:
    assert body_mask(np.full((4, 40, 40), AIR, np.float32)).all()


def test_the_box_of_a_mask_keeps_z() -> None:
    mask = np.zeros((6, 20, 30), bool)
    mask[2:4, 5:9, 7:22] = True
    assert body_box(mask) == (slice(0, 6), slice(5, 9), slice(7, 22))


FAT, MUSCLE = 0.5, 1.0


def test_the_box_of_muscle_leaves_the_fat_around_it_out() -> None:
    volume = np.full((10, 160, 200), AIR, np.float32)
    volume[:, 10:150, 10:190] = MUSCLE  # skin
    volume[:, 12:148, 12:188] = FAT
    volume[:, 50:110, 40:150] = MUSCLE
    volume[3, 130, 170] = MUSCLE  # a vessel in the fat
    inside = body_mask(volume)
    z, y, x = muscle_box(volume, inside, 0.75, SPACING, np)
    assert z == slice(0, 10)
    most = round(MARGIN / SPACING[1]) + EDGE + 1
    assert 50 - most <= y.start <= 50 - MARGIN / SPACING[1] and 110 + MARGIN / SPACING[1] <= y.stop <= 110 + most
    assert 40 - most <= x.start <= 40 - MARGIN / SPACING[1] and 150 + MARGIN / SPACING[1] <= x.stop <= 150 + most


def test_the_box_of_muscle_is_within_the_bodys_and_is_it_where_there_is_none() -> None:
    volume = torso()
    inside = body_mask(volume)
    assert muscle_box(volume, inside, 0.75, SPACING, np) == body_box(inside)  # muscle up to the skin
    assert muscle_box(volume, inside, 2.0, SPACING, np) == body_box(inside)
