"""Variants of a run beside the reference, on tiny networks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.variants import table
from inference.card_file import read_card
from inference.machine import computes
from tests.benchmark.runs import benchmark


def test_a_table_tells_the_worst() -> None:
    results = {"bf16": {
        "a": {"voxels": 0.999, "dice": {"1": 0.99}, "time": 0.25},
        "b": {"voxels": 0.995, "dice": {"1": 0.97, "2": 1.0}, "time": 0.75},
    }}  # fmt: skip
    assert table(results).splitlines()[-1] == "| bf16 | 0.500 % | 0.970 | 0.9867 | 0.50 |"


@pytest.mark.slow
@pytest.mark.skipif(not computes("bf16"), reason="this processor has no bfloat16")
def test_every_variant_is_run(
    blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    scan = save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    record = tmp_path / "v.json"
    done = benchmark("variants", tiny_weights, scan, "--json", record, "--window", "8,32,48")
    assert done.returncode == 0, done.stderr
    found = json.loads(record.read_text())
    names = {"bf16", "abdomen plan", "abdomen plan, bf16", "step 0.75", "window 8x32x48", "8 mm less image"}
    assert set(found) == names
    for scans in found.values():
        assert 0.5 < scans["x_0000.nii.gz"]["voxels"] <= 1


def test_floors_count_the_operations_of_a_network(tiny_weights: Path) -> None:
    from benchmark import floors

    # conftest's tiny plan by hand: kernels 1x3x3, then 3x3x3; strides 1x2x2, then 2x2x2; transposed back.
    full = 9 * (1 * 4 + 4 * 4) + (8 * 4) + 9 * (8 * 4) + 4 * 5  # encoder, transposed, decoder after it, last layer
    half = (27 * (4 * 8 + 8 * 8) + (12 * 8) + 27 * (16 * 8)) / 4
    quarter = 27 * (8 * 12 + 12 * 12) / 32
    assert floors.operations_a_voxel(read_card(tiny_weights / "organ")) == pytest.approx(2 * (full + half + quarter))


def test_floors_say_how_large_the_body_is_to_each_network(
    tiny_weights: Path,
    blob: np.ndarray,
    save_scan: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmark import floors

    monkeypatch.setattr(floors, "peak_operations", lambda *_: 1e9)  # which take seconds
    monkeypatch.setattr(floors, "peak_bytes", lambda: 1e9)
    scan = save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    floors.run(argparse.Namespace(weights=tiny_weights, scans=[scan], json=tmp_path / "floors.json"))
    (found,) = json.loads((tmp_path / "floors.json").read_text())["scans"].values()
    cards = {name: read_card(tiny_weights / name) for name in ("organ", "tumor")}
    assert found["operations"] == pytest.approx(
        sum(found["body_voxels"][name] * floors.operations_a_voxel(card) for name, card in cards.items())
    )
