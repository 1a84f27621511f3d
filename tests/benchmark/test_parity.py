"""Agreement by hand, and the whole command beside nnU-Net's on a tiny network and on the real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmark.parity import agreement
from tests.conftest import ROOT
from tests.made.networks import write_model


def test_agreement_by_hand() -> None:
    ours = np.array([0, 1, 1, 2, 2, 2])
    theirs = np.array([0, 1, 2, 2, 2, 2])
    found = agreement(ours, theirs)
    assert found.voxels == 5 / 6
    assert found.dice == {1: 2 / 3, 2: 6 / 7}
    assert not found.enough
    assert agreement(ours, ours).enough
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement(ours, ours[:3])


def parity(model: Path, *scans: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmark", "parity", model, *scans], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_tiny_network_on_a_turned_scan(blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    scans = [
        save_scan(tmp_path / "plain_0000.nii.gz", blob, (3.0, 2.0, 2.0)),
        save_scan(tmp_path / "turned_0000.nii.gz", blob, (2.0, 2.5, 2.5), "ASL"),
    ]
    # More labels than features: its last layer comes after blending and resampling.
    done = parity(write_model(tmp_path / "model", labels=6), *scans)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["plain", "turned"], done.stderr
    # Not the Dice of each label: random weights leave near-ties in small regions, and nnU-Net keeps logits in
    # float16, which decides those its own way.
    for line in lines:
        assert float(line.split()[1]) >= 99.95, line
        assert "1: 0.999" in line  # labels were found, so that there was something to compare


@pytest.mark.slow
def test_the_shipped_network_on_the_sample(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("nnunetv2")
    from inference.export.back import result_folder

    result_folder(ROOT / "weights" / "unified", tmp_path / "model")
    sample = nib.load(ROOT / "docs" / "sample" / "HCC_048_0000.nii.gz")
    scan = tmp_path / "x_0000.nii.gz"
    nib.save(sample.slicer[30:195, 25:160], scan)  # without its edges one window sees it; the tiny network has many
    done = parity(tmp_path / "model", scan)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f" {label}: " in done.stdout for label in range(1, 14))  # no tumour is found there
