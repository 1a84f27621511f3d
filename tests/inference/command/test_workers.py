"""Processes that segment, received from in one place."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.command.workers import ANSWERS, Lost, Workers
from inference.formats.cases import Case
from inference.options import DENSE, Options, Way


@pytest.fixture
def workers(tiny_weights: Path) -> Iterator[Workers]:
    workers = Workers(Options(weights=tiny_weights, device="cpu", engine="onnxruntime", threads=1), 60, lambda: None)
    yield workers
    workers.stop()


def answers(workers: Workers, count: int) -> dict[int, Any]:
    """What each of so many workers says at last, and what else they say between."""
    last: dict[int, Any] = {}
    while len(last) < count:
        if said := workers.receive():
            number, message = said
            if isinstance(message, Lost) or message.keys() & ANSWERS:
                last[number] = message
    return last


def order(case: Case, way: Way | None, container: int | None = None) -> dict[str, Any]:
    files, outputs = ([str(path) for path in paths] for paths in (case.files, case.outputs))
    of_case = {"name": case.name, "files": files, "outputs": outputs}
    return {"case": of_case, "ways": [asdict(way)] * 2 if way else None, "container": container, "threads": None}


def test_workers_are_heard_however_many_files_are_open(workers: Workers) -> None:
    """As those of 600 workers are, on a machine with as many processors."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 1200:
        pytest.skip("no more than 1,200 files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        workers.start()
        assert "ready" in answers(workers, 1)[1]
    finally:
        for file in taken:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_workers_segment_side_by_side_and_one_may_be_lost(
    workers: Workers, tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    assert [workers.start(), workers.start()] == workers.numbers == [1, 2]
    assert all("ready" in message for message in answers(workers, 2).values())
    cases = [
        Case(
            name, (save_scan(tmp_path / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0)),), (tmp_path / f"{name}.nii.gz",)
        )
        for name in "ab"
    ]
    for number, case in enumerate(cases, 1):
        workers.send(number, order(case, DENSE))
    records = answers(workers, 2)
    assert [records[number]["record"]["case"] for number in (1, 2)] == ["a", "b"]
    assert cases[0].labels.read_bytes() == cases[1].labels.read_bytes()
    os.kill(workers._workers[2].process.pid, signal.SIGKILL)
    workers.send(1, order(cases[0], None))  # an empty label map; the other worker had nothing to do
    records = answers(workers, 2)
    assert records[1]["record"]["status"] == "done"
    assert records[2].memory and "was ended by SIGKILL" in str(records[2])
    assert workers.numbers == [1]
    assert workers.start() == 3


def test_a_worker_that_shares_memory_says_what_it_needs_and_waits(
    workers: Workers, tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    workers.start()
    answers(workers, 1)
    scan = save_scan(tmp_path / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    case = Case("a", (scan,), (tmp_path / "a.nii.gz",))
    workers.send(1, order(case, DENSE, 10**12))
    need = answers(workers, 1)[1]["needs"]
    assert 10 * blob.size < need < 10**9
    workers.timeout = workers._workers[1].left = 0.5
    assert [workers.receive() for _ in range(4)] == [None] * 4  # longer than the timeout: it is we who let it wait
    assert not case.labels.exists()
    workers.timeout = 60
    workers.send(1, {"go": True})
    assert answers(workers, 1)[1]["record"]["status"] == "done"
    assert case.labels.exists()
