"""The one table of labels: what each value means here, in SNOMED CT, in TotalSegmentator and on any card."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from inference.card import read_cards
from inference.labels import BY_KEY, ORGANS, TABLE, TUMOR, distinct_colour, structures
from inference.options import WEIGHTS


def far(one: tuple[int, int, int], other: tuple[int, int, int]) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_values_are_those_of_flare_and_all_else_tells_labels_apart() -> None:
    assert [one.value for one in TABLE] == list(range(1, 15))
    assert TUMOR.value == 14 and (TUMOR.key, TUMOR.title) == ("tumor", "tumour")
    for field in ("key", "title", "colour"):
        assert len({getattr(one, field) for one in TABLE}) == len(TABLE), field
    assert all(far(one.colour, other.colour) >= 8 for one, other in combinations(TABLE, 2))
    assert len({(one.category, one.type, one.side) for one in TABLE}) == len(TABLE)


def test_codes_of_paired_organs_tell_the_side_and_others_have_none() -> None:
    right, left = BY_KEY["right_kidney"], BY_KEY["left_kidney"]
    assert right.type == left.type and right.side and left.side
    assert (right.side.value, left.side.value) == ("24028007", "7771000")
    for one in TABLE:
        side = next((word for word in ("Right", "Left") if one.title.startswith(word.lower())), None)
        assert (one.side.meaning if one.side else None) == side, one.key


def test_codes_of_snomed_have_their_check_digit() -> None:
    """The last digit of an identifier is Verhoeff's: no other test finds a digit that was mistyped."""

    def times(a: int, b: int) -> int:  # in the dihedral group of order 10: 5..9 are reflections
        return ((a + b) if a < 5 else (a - b)) % 5 + 5 * ((a < 5) != (b < 5))

    step = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    for one in TABLE:
        for code in (one.category, one.type, one.side):
            check = 0
            for place, digit in enumerate(reversed(code.value if code else "")):
                number = int(digit)
                for _ in range(place % 8):
                    number = step[number]
                check = times(check, number)
            assert check == 0, code


def test_the_shipped_card_spells_labels_as_the_table_does() -> None:
    (card,) = read_cards(Path(WEIGHTS), None)
    assert {label.value: label.name for label in card.labels if label.value} == {one.value: one.key for one in TABLE}
    assert {label.name for label in card.labels if label.one_piece} == {one.key for one in ORGANS}


@pytest.mark.parametrize("name", ["right_kidney", "Right Kidney", "right-kidney", "kidney_right"])
def test_a_known_structure_of_another_card_keeps_its_value_and_name_and_gets_title_colour_and_codes(name: str) -> None:
    (one,) = structures({3: name})
    ours = BY_KEY["right_kidney"]
    assert (one.value, one.key, one.title, one.colour) == (3, name, "right kidney", ours.colour)
    assert (one.type, one.side) == (ours.type, ours.side)


def test_an_unknown_structure_gets_its_own_name_and_a_colour_and_no_codes() -> None:
    lung, rib = structures({9: "rib_left_1", 2: "lung"})
    assert (lung.value, lung.title, rib.title) == (2, "lung", "rib left 1")
    assert lung.category is lung.type is lung.side is None
    assert lung.colour == distinct_colour(2)


def test_colours_of_any_two_values_differ_and_those_of_neighbours_differ_much() -> None:
    colours = {value: distinct_colour(value) for value in range(1, 256)}
    assert len({*colours.values(), *(one.colour for one in TABLE)}) == 255 + len(TABLE)
    for value, other in combinations(colours, 2):
        if other - value <= 8:
            assert far(colours[value], colours[other]) >= 30, (value, other)
