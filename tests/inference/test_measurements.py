"""The table of measurements: CSV that programs read back, and that does nothing in a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from inference.errors import shown
from inference.measurements import COLUMNS, is_table, rows, table

LABEL = {
    "name": "tumor", "voxels": 8, "ml": 1.5,
    "hu": {"0": {"mean": 40.25, "median": 40.0, "standard_deviation": 3.5}},
    "extent_mm": {"left-right": 3.0, "front-back": 4.0, "head-foot": 5.0}, "edges": {"last slice": 3}, "pieces": 2,
    "diameter": {"mm": 4.5, "slice": 7, "position_mm": [-1.0, 2.0, 3.0]},
}  # fmt: skip


def read(name: str, label: dict[str, Any]) -> list[list[str]]:
    content = b"".join(table([rows(shown(name), {"14": label})]))
    assert is_table(content)
    return list(csv.reader(io.StringIO(content.decode())))


def test_one_row_a_quantity() -> None:
    head, *lines = read("x", LABEL)
    assert head == ["case", "label", "name", "quantity", "value", "unit"] == list(COLUMNS)
    assert all(line[:3] == ["x", "14", "tumor"] for line in lines)
    assert [tuple(line[3:]) for line in lines] == [
        ("volume", "1.5", "ml"),
        ("mean", "40.25", "HU"), ("median", "40.0", "HU"), ("standard deviation", "3.5", "HU"),
        ("extent left-right", "3.0", "mm"), ("extent front-back", "4.0", "mm"), ("extent head-foot", "5.0", "mm"),
        ("pieces", "2", ""), ("longest axial diameter", "4.5", "mm"), ("slice of the diameter", "7", ""),
        ("position of the diameter right", "-1.0", "mm"), ("position of the diameter anterior", "2.0", "mm"),
        ("position of the diameter superior", "3.0", "mm"), ("edge contact last slice", "3", "voxels"),
    ]  # fmt: skip


def test_what_an_earlier_version_did_not_measure_has_no_row() -> None:
    assert read("x", {"name": "liver", "voxels": 8, "ml": 0.1})[1:] == [["x", "14", "liver", "volume", "0.1", "ml"]]


def test_several_channels_are_told_apart() -> None:
    scale = LABEL["hu"]["0"]  # type: ignore[index]
    quantities = [line[3] for line in read("x", LABEL | {"hu": {"0": scale, "2": scale}})]
    assert "mean of channel 0000" in quantities and "standard deviation of channel 0002" in quantities


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("a, b", "a, b"), ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"), ("+1", "'+1"), ("-1", "'-1"), ("@x", "'@x"),
        ("  =1", "  '=1"), ("a;=1", "a;'=1"), ("a,-1", "a,'-1"), ("a-1", "a-1"), ("a=b", "a=b"), ("＝1", "'＝1"),
        ("ü", "ü"),
    ],
)  # fmt: skip
def test_no_name_is_a_formula(name: str, cell: str) -> None:
    assert read(name, LABEL)[1][0] == cell
    assert read("x", LABEL | {"name": " ".join(name.split())})[1][2] == cell.strip()


def test_no_name_breaks_a_line() -> None:
    assert len(read("a\nb\r\tc\x00\udcff", LABEL | {"name": "a\n=b\udcff"})) == 15


@pytest.mark.parametrize("change", [{"name": 3}, {"ml": "1"}, {"ml": True}, {"hu": [1]}, {"pieces": 1, "diameter": 3}])
def test_what_is_no_record_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        list(rows("x", {"1": LABEL | change}))
