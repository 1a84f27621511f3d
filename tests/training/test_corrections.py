"""Labels corrected by a list: what an entry takes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.corrections import corrected, read_corrections
from training.pack import VALIDATION

REPOSITORY = Path(__file__).parents[2]
ENTRY: dict[str, Any] = {
    "scan": "x",
    "why": "tail missed",
    "z": [2, 3],
    "polygon": [[4, 2], [8, 2], [8, 6], [4, 6]],
    "from": [0, 3],
    "to": 4,
}


def listed(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "corrections.json"
    path.write_text(json.dumps(entries))
    return path


def test_an_entry_takes_its_labels_inside_its_polygon_and_slices(tmp_path: Path) -> None:
    label = np.zeros((6, 10, 12), np.uint8)
    label[:, 4, :], label[:, 5, :] = 3, 7
    after = corrected(label, label, (1, 1, 1), read_corrections(listed(tmp_path, ENTRY))["x"])
    wanted = label.copy()
    wanted[2:4, 2:7, 4:9] = np.where(wanted[2:4, 2:7, 4:9] == 7, 7, 4)
    assert np.array_equal(after, wanted)
    assert not (label == 4).any()


def test_with_hu_only_what_is_as_bright_and_later_entries_see_earlier_ones(tmp_path: Path) -> None:
    label, hu = np.zeros((6, 10, 12), np.uint8), np.full((6, 10, 12), -100.0)
    hu[:, :, 6:] = 60
    second = ENTRY | {"from": [4], "to": 255, "z": [3, 3]}
    entries = read_corrections(listed(tmp_path, ENTRY | {"hu": [20, 100]}, second))["x"]
    after = corrected(label, hu, (4.0, 4.0, 4.0), entries)
    assert (after[2, 2:7, 6:9] == 4).all() and (after[3, 2:7, 6:9] == 255).all()
    assert not after[:, :, :6].any()


@pytest.mark.parametrize("content", ["{", "[3]", '[{"scan": "x"}]'])
def test_another_file_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "corrections.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"corrections\.json cannot be read as a list of corrections"):
        read_corrections(path)


def test_a_correction_beyond_the_scan_is_refused(tmp_path: Path) -> None:
    label = np.zeros((3, 10, 12), np.uint8)
    with pytest.raises(ValueError, match="x has 3 slices"):
        corrected(label, label, (1, 1, 1), read_corrections(listed(tmp_path, ENTRY))["x"])


def test_the_projects_list_corrects_no_validation_scan() -> None:
    corrections = read_corrections(REPOSITORY / "training" / "corrections.json")
    assert corrections and not [name for name in corrections if name.startswith(VALIDATION)]
    assert all(one.why and one.code not in one.codes for entries in corrections.values() for one in entries)
