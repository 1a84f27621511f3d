"""TotalSegmentator, which brings its own networks."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmark.peers.peer import Networks, Peer
from inference.labels import ORGANS

# TotalSegmentator's structures -> FLARE's labels.
STRUCTURES = {one.totalsegmentator: one.value for one in ORGANS if one.totalsegmentator}


def totalsegmentator(networks: Networks, scan: Path, work: Path) -> Peer:
    """TotalSegmentator with its own networks, for the 13 organs only."""
    program = shutil.which("TotalSegmentator")
    weights = Path(os.environ.get("TOTALSEG_HOME_DIR", Path.home() / ".totalsegmentator")) / "nnunet" / "results"
    if program is None:
        raise ValueError("TotalSegmentator is not installed")
    if not weights.is_dir() or not any(weights.iterdir()):
        raise ValueError(f"TotalSegmentator's weights are not in {weights}, and a benchmark downloads nothing")
    out = work / "structures"
    command = [program, "-i", str(scan), "-o", str(out), "-d", "gpu" if networks.device == "cuda" else "cpu"]

    def labels() -> np.ndarray:
        found = np.zeros(nib.load(scan).shape, np.uint8)
        for name, label in STRUCTURES.items():
            found[np.asarray(nib.load(out / f"{name}.nii.gz").dataobj) > 0] = label
        return found

    settings = f"TotalSegmentator {version('TotalSegmentator')} --roi_subset of the 13 organs, its own networks"
    return Peer(settings, [[*command, "--roi_subset", *STRUCTURES]], labels)
