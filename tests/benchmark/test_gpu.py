"""The measuring of a GPU, on the CPU: what is sent to a machine that is lent for minutes must work there at once."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import pytest

from tests.benchmark.runs import benchmark
from tests.conftest import ROOT

SAMPLE = ROOT / "docs" / "sample" / "HCC_048_0000.nii.gz"
STAGES = ("labels", "start", "process")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    scan = folder / "part_0000.nii.gz"
    nib.save(nib.load(SAMPLE).slicer[:, :, 30:62], scan)
    done = benchmark("gpu-kit", folder / "kit", scan)
    assert done.returncode == 0, done.stderr
    return folder / "kit"


@pytest.mark.slow
def test_labels_start_and_process_are_measured(kit: Path, tmp_path: Path) -> None:
    done = benchmark("gpu", kit, tmp_path, "--device", "cpu", "--stages", ",".join(STAGES), "--scans", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    labels, start, process = (json.loads((tmp_path / f"{name}.json").read_text()) for name in STAGES)
    assert labels["agreement"]["part.nii.gz"]["voxels"] > 0.999 and len(labels["kit"]) == 40
    assert labels["agreement_f32"]["part.nii.gz"]["voxels"] > 0.9999  # as the kit's own were made
    assert [one["error"] for one in start["probes"]] == [None] * 6
    assert start["probes"][0]["steps"]["import torch"] > 0
    assert any(one["module"] == "numpy" for one in start["imports"])
    (scan,) = process["scans"]
    assert scan["total"] > scan["network"] > 0
    assert "segment.py" in (tmp_path / "profile.txt").read_text()


@pytest.mark.slow
def test_a_stage_that_fails_is_written_and_the_next_goes_on(kit: Path, tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--stages", "runs,memory", "--seconds", "0")
    done = benchmark("gpu", kit, tmp_path, *arguments)
    assert done.returncode == 1
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert list(errors) == ["runs", "memory"] and all("timed out" in said for said in errors.values())
