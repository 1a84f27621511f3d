"""Several workers, received from in one place."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.command.workers import Lost, Workers
from inference.formats.cases import Case
from inference.options import DENSE, Options


@pytest.fixture
def workers(tiny_weights: Path) -> Iterator[Workers]:
    workers = Workers(Options(weights=tiny_weights, device="cpu", engine="onnxruntime", threads=1), 2, 60, lambda: None)
    yield workers
    workers.stop()


def answers(workers: Workers, count: int) -> dict[int, Any]:
    """What each of so many workers says at last, and what else they say between."""
    last: dict[int, Any] = {}
    while len(last) < count:
        number, message = workers.receive()
        if isinstance(message, Lost) or message.keys() & {"ready", "fatal", "record"}:
            last[number] = message
    return last


def test_two_workers_segment_side_by_side_and_one_may_be_lost(
    workers: Workers, tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    for number in (0, 1):
        assert workers.free() == number
        workers.start(number)
    assert workers.free() is None
    assert all("ready" in message for message in answers(workers, 2).values())
    cases = [
        Case(
            name, (save_scan(tmp_path / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0)),), (tmp_path / f"{name}.nii.gz",)
        )
        for name in "ab"
    ]
    for number, case in enumerate(cases):
        workers.send(number, case, DENSE)
    assert workers.free() is None
    records = answers(workers, 2)
    assert [records[number]["record"]["case"] for number in (0, 1)] == ["a", "b"]
    assert cases[0].labels.read_bytes() == cases[1].labels.read_bytes()
    os.kill(workers._workers[1].process.pid, signal.SIGKILL)
    for number, case in enumerate(cases):
        workers.send(number, case, None)  # empty label maps
    records = answers(workers, 2)
    assert records[0]["record"]["status"] == "done"
    assert records[1].memory and "was ended by SIGKILL" in str(records[1])
    assert workers.free() == 0 and not workers.is_there(1)
