"""What all tests of the exporter need."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks this small gain nothing by two threads, which wait for each other where cores are shared."""
    pytest.importorskip("torch").set_num_threads(1)
