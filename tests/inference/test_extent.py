"""How large a scan may be: for networks of abdomens, and for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import ScanError
from inference.formats.reading import peek, read_scan
from inference.grids.view import too_thin
from inference.scan import Grid, check_extent
from tests.inference.cards import make_card

ABDOMEN = ((200, 512, 512), (2.0, 0.8, 0.8))
ODD: list[Any] = [
    ((1, 256, 256), (5.0, 1.0, 1.0), "has only 1 x 256 x 256 voxels: no volume", None),
    ((1, 256, 256), (999.0, 1.0, 1.0), "has only", None),
    ((2, 256, 256), (20.0, 1.0, 1.0), "has only", None),
    ((20, 20, 20), (1.0, 1.0, 1.0), "covers 20 x 20 x 20 mm: not plausible", "labels are wrong if its spacing"),
    ((80, 80, 80), (40.0, 1.0, 1.0), "has the spacing", "no body is so long"),
    ((9, 800, 800), (40.0, 1.0, 1.0), "has the spacing", "labels are wrong if its spacing"),
    ((200, 800, 800), (0.2, 0.04, 0.04), "has the spacing", "labels are wrong if its spacing"),
    ((200, 800, 800), (0.2, 0.04, 1e-20), "has the spacing", "not plausible"),
]


@pytest.mark.parametrize(("shape", "spacing", "refused", "said"), ODD)
def test_what_is_no_abdomen(shape: Any, spacing: Any, refused: str, said: str | None) -> None:
    with pytest.raises(ScanError, match=refused):
        check_extent(shape, spacing)
    try:
        told = check_extent(shape, spacing, abdominal=False)
    except ScanError as error:
        told = [str(error)]
    assert [said in one for one in told if said] == ([True] if said else []) and len(told) == bool(said)


def test_an_abdomen_is_right_for_both() -> None:
    assert check_extent(*ABDOMEN) == check_extent(*ABDOMEN, abdominal=False) == []


def test_files_and_their_headers_are_asked_the_same(tmp_path: Path, save_scan: Callable[..., Path]) -> None:
    file = save_scan(tmp_path / "x.nii.gz", np.arange(1600, dtype=np.int16).reshape(1, 40, 40), (5.0, 2.0, 2.0))
    for read in (read_scan, peek):
        with pytest.raises(ScanError, match=r"^x.nii.gz has only 40 x 40 x 1 voxels: no volume"):
            read(file)
    assert peek(file, abdominal=False).grid.shape == (1, 40, 40)
    assert read_scan(file, ct=[False], abdominal=False).voxels[0, 0, 1] == 1


@pytest.mark.parametrize(("patch", "count"), [((1, 64, 64), 0), ((2, 64, 64), 0), ((3, 64, 64), 1)])
def test_a_network_of_several_planes_is_told_of_one(patch: Any, count: int) -> None:
    odd = too_thin(Grid.of((1, 256, 256), (5.0, 1.0, 1.0), "LPS"), [make_card(patch=patch)])
    assert len(odd) == count and all(
        "has only 1 x 256 x 256 voxels, and network organ sees 3 x 64 x 64" in text for text in odd
    )
