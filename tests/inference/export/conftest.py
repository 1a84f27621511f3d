"""What all tests of the exporter need."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


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
