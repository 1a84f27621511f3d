"""What all tests of the exporter need."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import WeightsError


def refusal(model: Path, **options: Any) -> str:
    """What the exporter says of a folder that it refuses: one line that names it. Nothing is written."""
    from inference.export.convert import export

    before = sorted(model.parent.iterdir())
    with pytest.raises(WeightsError) as caught:
        export(model, model.parent / "net", **options)
    said = str(caught.value)
    assert "\n" not in said and model.name in said
    assert sorted(model.parent.iterdir()) == before
    return said


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the result folder of a tiny network, that may be changed."""
    return shutil.copytree(tiny_model, tmp_path / "m")


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports without the check of every engine, which takes a process each: other tests export with it."""
    monkeypatch.setattr("inference.export.convert.check_engines", lambda *_: None)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks this small gain nothing by two threads, which wait for each other where cores are shared."""
    pytest.importorskip("torch").set_num_threads(1)


@pytest.fixture
def organ(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy of a network that may be changed."""
    return shutil.copytree(tiny_weights / "organ", tmp_path / "weights" / "organ")


@pytest.fixture
def scan(blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path) -> Path:
    return save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
