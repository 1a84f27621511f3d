"""Packed scans and a student, both small, that the tests of the trainer share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.labels import IGNORE
from training.packed import Spec, as_packed, write_packed
from training.plans import Student

SPACING = (5.0, 4.0, 4.0)
TINY = Student(
    spacing=(6.0, 5.0, 5.0),
    patch=(16, 16, 24),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    norms=False,
    force_separate_z=False,
    features=(8, 16, 24),
)


def abdomen(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (z, y, x) = (28, 48, 56) of a body with a liver, an aorta, a tumour and a part nobody knows."""
    rng = np.random.default_rng(seed)
    hu, label = np.full((28, 48, 56), -1000.0), np.zeros((28, 48, 56), np.uint8)
    hu[:, 4:44, 4:52] = -80
    for code, level, box in (
        (1, 110, (slice(4, 22), slice(10, 34), slice(8, 30))),
        (5, 180, (slice(None), slice(34, 40), slice(26, 31))),
        (14, 70, (slice(8, 14), slice(16, 24), slice(12, 20))),
        (IGNORE, 40, (slice(20, 24), slice(20, 30), slice(36, 44))),
    ):
        hu[box], label[box] = level + rng.normal(0, 5), code
    return hu + rng.normal(0, 8, hu.shape), label


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks this small gain nothing by two threads, which wait for each other where cores are shared."""
    pytest.importorskip("torch").set_num_threads(1)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three packed scans, one of them for validation: see SPEC."""
    folder = tmp_path_factory.mktemp("packed")
    for seed, name in enumerate(("one", "two", "held_out")):
        write_packed(folder, as_packed(name, *abdomen(seed), SPACING))
    return folder


SPEC = Spec(shares={"one": 1.0, "two": 2.0}, late={"one": 1.0, "two": 0.5}, validation=["held_out"])
