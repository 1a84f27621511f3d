"""Each rule of the table, broken by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inference.anatomy.doubts import RULES, Doubt, find, summary
from inference.labels import BY_KEY, TUMOR

from .made import AIR, BOXES, SOFT, thin, trunk

LIVER, SPLEEN, TUMOUR = (BY_KEY[key].value for key in ("liver", "spleen", "tumor"))
ABSENT = ("esophagus", "duodenum", "right_adrenal_gland", "left_adrenal_gland")  # the trunk has none


def found(hu: np.ndarray, labels: np.ndarray) -> dict[str, Doubt]:
    return {key: doubt for key, doubt in find(thin(hu, labels)).items() if key not in ABSENT}


def test_a_sound_trunk_has_no_doubts_but_for_what_it_lacks() -> None:
    doubts = find(thin(*trunk()))
    assert {key: doubt.kind for key, doubt in doubts.items()} == dict.fromkeys(ABSENT, "missing")
    assert doubts["left_adrenal_gland"].why == "not found, though the scan shows spleen and left kidney whole"
    assert summary({"liver": Doubt("look", ""), "spleen": Doubt("missing", ""), "stomach": Doubt("cut", "")}) == (
        "organs to look at twice: liver, spleen (missing)"
    )


@pytest.mark.parametrize("key", [key for key in BOXES if RULES[key].beside])
def test_an_organ_is_missing_where_those_beside_it_are_in_view(key: str) -> None:
    hu, labels = trunk()
    labels[labels == BY_KEY[key].value] = 0
    assert found(hu, labels)[key].kind == "missing"


def test_none_is_missing_beside_one_that_is_cut() -> None:
    hu, labels = trunk()
    labels[labels == SPLEEN] = 0
    hu, labels = hu[9:], labels[9:]  # through both kidneys
    assert {key: doubt.kind for key, doubt in found(hu, labels).items()} == dict.fromkeys(
        ("right_kidney", "left_kidney"), "cut"
    )
    assert found(hu, labels)["left_kidney"].why == "it goes on beyond the lower edge of the scan"
    assert summary({"left_kidney": Doubt("cut", "")}) is None


@pytest.mark.parametrize("key", [key for key in BOXES if RULES[key].ml])
def test_more_or_less_than_an_adult_has(key: str) -> None:
    hu, labels = trunk()
    value = BY_KEY[key].value
    few = labels.copy()
    few[few == value] = 0
    few[25, 42:44, 32:36] = value  # 1 ml
    assert "ml are less than an adult has" in found(hu, few)[key].why
    labels[2:46, 8:42, 8:62] = value
    assert "ml are more than an adult has" in found(np.full_like(hu, SOFT), labels)[key].why


@pytest.mark.parametrize("key", [key for key in BOXES if RULES[key].hu])
@pytest.mark.parametrize("value", [AIR, 1000])
def test_a_mean_that_no_such_organ_has(key: str, value: int) -> None:
    hu, labels = trunk()
    hu[labels == BY_KEY[key].value] = value
    assert found(hu, labels)[key] == Doubt("look", f"its mean is {value} HU")


@pytest.mark.parametrize("key", [key for key in BOXES if RULES[key].one])
def test_an_organ_in_two_pieces(key: str) -> None:
    hu, labels = trunk()
    (low, high), *_ = BOXES[key]
    labels[(low + high) // 2][labels[(low + high) // 2] == BY_KEY[key].value] = 0
    doubt = found(hu, labels)[key]
    assert doubt.kind == "look" and "its largest piece is" in doubt.why


def test_a_tumour_larger_than_what_is_left_of_its_organ() -> None:
    hu, labels = trunk()
    labels[20:28, 18:42, 42:60] = TUMOUR
    assert TUMOR.key not in found(hu, labels)
    labels[20:30, 18:42, 42:60] = TUMOUR
    assert found(hu, labels)[TUMOR.key].why == "540 ml are more than the liver beside it has (432 ml)"


def test_a_network_that_does_not_know_an_organ_does_not_miss_it() -> None:
    hu, labels = trunk()
    scan = thin(hu, labels)
    values = {key: value for key, value in scan.values.items() if key not in ABSENT}
    assert find(type(scan)(hu, labels, scan.spacing, values)) == {}
