"""The steps that are taken where memory runs out. A GPU's memory is played: there is none here."""

from __future__ import annotations

import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.command.cli import parse
from inference.command.worker import Worker
from inference.formats.cases import Case
from inference.formats.nifti.file import read
from inference.options import ABDOMEN, Way, most_voxels
from inference.predictor import Predictor
from tests.conftest import ROOT

BOTH = (ABDOMEN, ABDOMEN)  # the organ network and that of tumours


@pytest.fixture
def case(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Case:
    scan = save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    return Case("x", (scan,), (tmp_path / "x.nii.gz",))


def worker_of(weights: Path, case: Case, refuse: Callable[[bool], bool], wide: bool = True) -> Worker:
    """A worker whose own predictor has too little memory where `refuse(small)`, small being the way.

    wide  its networks take any window
    """
    flags = ("--weights", weights, "--device", "cpu", "--precision", "f32", "--threads", "1")
    worker = Worker(parse([case.scan, case.labels.parent, *flags]).options, lambda _: None, lambda: None)
    if wide:
        worker.predictor.cards = [replace(card, window_multiple=(2, 4, 4)) for card in worker.predictor.cards]
    able = worker.predictor.segment

    def segment(scan: Any, begin: Any, ways: Sequence[Way], probabilities: Any) -> Any:
        if refuse(most_voxels(ways) < ABDOMEN.most_voxels):
            raise MemoryError
        return able(scan, begin, ways, probabilities)

    worker.predictor.segment = segment  # type: ignore[method-assign,assignment]
    return worker


def test_with_memory_enough_nothing_is_said(case: Case, tiny_weights: Path) -> None:
    record = worker_of(tiny_weights, case, lambda small: False).segment(case, BOTH)
    assert record.status == "done" and record.fallback == record.warnings == []


def test_small_windows_come_first(case: Case, tiny_weights: Path) -> None:
    record = worker_of(tiny_weights, case, lambda small: not small).segment(case, BOTH)
    assert record.status == "done"
    (step,) = record.fallback
    assert "in windows of 500,000 voxels at most" in step and step in record.warnings


def test_voxels_that_were_freed_are_read_again(case: Case, tiny_weights: Path) -> None:
    """By a second attempt, and to be measured: where memory is limited."""
    expected = worker_of(tiny_weights, case, lambda small: False).segment(case, BOTH)
    worker = worker_of(tiny_weights, case, lambda small: False)
    worker.predictor.options = replace(worker.predictor.options, max_memory=10**12)
    model = worker.predictor._models[-1]
    failed: list[bool] = []

    def network(batch: np.ndarray) -> Any:
        if not failed:
            failed.append(True)
            raise MemoryError
        return model.network(batch)

    worker.predictor._models[-1] = replace(model, network=network)
    record = worker.segment(case, BOTH)
    assert failed and len(record.fallback) == 1
    assert (record.status, record.outputs, record.labels) == ("done", expected.outputs, expected.labels)


def test_a_gpu_without_memory_leaves_it_to_the_cpu(case: Case, tiny_weights: Path) -> None:
    worker = worker_of(tiny_weights, case, lambda small: True)
    worker.predictor.choice = replace(worker.predictor.choice, device="cuda")
    record = worker.segment(case, BOTH)
    assert record.status == "done"
    assert [step.rsplit(": ", 1)[1] for step in record.fallback] == [
        "in windows of 500,000 voxels at most",
        "on the CPU",
    ]
    assert record.device == "cpu" and record.engine == "openvino"
    expected, _ = Predictor(tiny_weights, device="cpu", threads=1).segment(read(case.scan))
    assert np.array_equal(read_labels(case.labels), expected)


def test_too_little_memory_in_every_way_fails_by_name(case: Case, tiny_weights: Path) -> None:
    record = worker_of(tiny_weights, case, lambda small: True).segment(case, BOTH)
    assert record.status == "failed" and record.error == "not enough memory for this scan"
    assert not case.labels.exists()


def test_a_network_whose_windows_cannot_be_smaller_fails_at_once(case: Case, tiny_weights: Path) -> None:
    tries: list[bool] = []

    def refuse(small: bool) -> bool:
        tries.append(small)
        return True

    record = worker_of(tiny_weights, case, refuse, wide=False).segment(case, BOTH)
    assert record.error == "not enough memory for this scan"
    assert tries == [False] and record.fallback == []


def test_an_empty_label_map_that_needs_too_much_memory_fails_in_a_sentence(
    case: Case, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    worker = worker_of(tiny_weights, case, lambda small: False)
    monkeypatch.setattr("inference.formats.reading.write_empty", refuse)
    record = worker.empty(case)
    assert (record.status, record.error) == ("failed", "not enough memory for this scan")


def test_a_try_that_failed_has_given_its_memory_back_before_the_next(case: Case, tiny_weights: Path) -> None:
    held: list[weakref.ref[np.ndarray]] = []

    def refuse(small: bool) -> bool:
        if not small:
            volume = np.zeros(1000)
            held.append(weakref.ref(volume))
            raise MemoryError  # with a frame that holds the volume
        assert held[0]() is None
        return False

    assert worker_of(tiny_weights, case, refuse).segment(case, BOTH).status == "done"


def test_what_a_library_says_without_memory_is_not_called_an_internal_error(case: Case, tiny_weights: Path) -> None:
    def refuse(small: bool) -> bool:
        raise RuntimeError("Exception from src/x.cpp:1:\nstd::bad_alloc\n")

    record = worker_of(tiny_weights, case, refuse).segment(case, BOTH)
    assert record.error == "not enough memory for this scan"


def test_an_error_of_many_lines_is_said_in_one(
    case: Case, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(small: bool) -> bool:
        raise RuntimeError("Exception from src/x.cpp:1:\n\x1b[31mno such\nlayout\x1b[m\n\n")

    record = worker_of(tiny_weights, case, refuse).segment(case, BOTH)
    assert record.error == "internal error: RuntimeError: no such layout"
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [60_000, 100_000, 150_000, 200_000, 300_000])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_a_process_with_too_little_memory_ends_in_sentences(
    kilobytes: int, engine: str, case: Case, tiny_weights: Path
) -> None:
    """From hardly enough to begin with to nearly enough."""
    pytest.importorskip(engine)
    command = f'ulimit -v {kilobytes}; exec "$@"'
    arguments: list[str | Path] = [case.scan, case.labels.parent / "out", "--weights", tiny_weights, "--engine", engine]
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "inference", *arguments, "--threads", "1"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    if done.returncode != 0:
        assert done.returncode in (1, 3, 4)
        assert re.search("memory|was ended by|cannot be loaded|is too large", done.stderr)


def read_labels(path: Path) -> np.ndarray:
    import nibabel as nib

    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)
