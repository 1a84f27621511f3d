"""Ours and the peers that are installed, on a tiny network: real programs, real label maps."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmark.runs import SCHEMA, benchmark
from tests.made.networks import write_model

jsonschema = pytest.importorskip("jsonschema")


def versus(peer: str, cases: Path, out: Path, *more: Any) -> subprocess.CompletedProcess[str]:
    return benchmark("versus", "--peer", peer, "--cases", cases, "--out", out, *more)


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "package"), [("nnunet", "nnunetv2"), ("monai", "monai")])
def test_a_peer_runs_the_same_networks(
    peer: str,
    package: str,
    blob: np.ndarray,
    save_scan: Callable[..., Path],
    tiny_model: Path,
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip(package)
    save_scan(tmp_path / "cases" / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0), "RAS")
    tumor = write_model(tmp_path / "tumor", labels=2, seed=1)
    # nnU-Net knows no other value for the one label of that network than 1.
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights / "organ", weights / "organ")
    models: list[Path] = [tiny_model]
    if peer == "monai":
        shutil.copytree(tiny_weights / "tumor", weights / "tumor")
        models.append(tumor)
    out = tmp_path / "versus.json"
    flags = "--plan dense --precision f32 --engine onnxruntime"
    done = versus(
        peer, tmp_path / "cases", out, "--pairs", "1", "--weights", weights, "--models", *models, "--flags", flags
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    jsonschema.validate(document, SCHEMA)
    (pair,) = document["pairs"]
    assert len(pair["theirs"]) == len(models)
    assert pair["ratio"] == pytest.approx(sum(one["wall_s"] for one in pair["theirs"]) / pair["ours"]["wall_s"], 1e-3)
    # nnU-Net's labels are ours; MONAI resamples linearly, and random weights amplify that.
    assert pair["equal_voxels"] > (0.9995 if peer == "nnunet" else 0.5)
    assert package.replace("nnunetv2", "nnUNetv2").lower() in document["settings"].lower()
    assert "times as fast" in done.stdout


def test_a_peer_that_is_not_to_be_had_is_one_sentence(
    blob: np.ndarray, save_scan: Callable[..., Path], tiny_model: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    if shutil.which("TotalSegmentator"):
        pytest.skip("TotalSegmentator is installed here")
    save_scan(tmp_path / "cases" / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    out = tmp_path / "out.json"
    done = versus("totalsegmentator", tmp_path / "cases", out, "--weights", tiny_weights, "--models", tiny_model)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: TotalSegmentator is not installed"
    assert not out.exists()
