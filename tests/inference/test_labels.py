"""The labels of the sample by the shipped network: the same on every CPU and engine in float32, and held here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import ROOT

HELD = Path(__file__).parent / "sample_labels.nii.gz"
MOST = 1e-4  # share of the voxels; AVX2, AVX-512 and ONNX Runtime give the very same


@pytest.mark.slow
def test_whoever_changes_labels_raises_their_version(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-m", "inference", ROOT / "docs" / "sample", tmp_path]
    subprocess.run([*command, "--device", "cpu", "--precision", "f32"], cwd=ROOT, check=True)
    found, held = (np.asarray(nib.load(path).dataobj) for path in (tmp_path / "HCC_048.nii.gz", HELD))
    changed = float(np.mean(found != held))
    assert changed <= MOST, (
        f"{100 * changed:.3f} % of the sample's labels changed: raise version.LABELS, say so in CHANGELOG.md under "
        f"Labels, and copy the new label map to {HELD.name}"
    )
