"""cluster/Snakefile, run by Snakemake itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_parts_are_run_and_merged_and_a_bad_scan_ends_nothing(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    if not shutil.which("snakemake"):
        pytest.skip("snakemake is not installed: it needs an environment of its own")
    for name in ("a", "b", "c"):
        save_scan(tmp_path / "in put" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    (tmp_path / "in put" / "d_0000.nii.gz").write_bytes(b"no scan")
    out = tmp_path / "out put"
    flags = f"--weights {tiny_weights} --device cpu --engine onnxruntime"
    config = [f"inputs={tmp_path}/in put", f"outputs={out}", "parts=2", f"viscera={sys.executable} -m inference"]
    command: list[str | Path] = [
        "snakemake",
        "--snakefile",
        ROOT / "cluster" / "Snakefile",
        "--cores",
        "1",
        "--directory",
        tmp_path,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--config", *config, f"flags={flags}"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "a.json", "a.nii.gz", "b.json", "b.nii.gz", "c.json", "c.nii.gz", "d.json", "measurements.csv",
        "summary.1-of-2.json", "summary.2-of-2.json", "summary.json",
    ]  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cases"] == {"done": 3, "kept": 0, "failed": 1, "not_begun": 0}
    assert [one["case"] for one in summary["failed"]] == ["d"]
