"""What every stage is told, and what all of them do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmark.document import write
from benchmark.parity import agreement
from benchmark.process import ROOT


@dataclass(frozen=True)
class Job:
    """What a stage is told: folders, the device and the engine, how many scans one process takes."""

    kit: Path
    out: Path
    work: Path
    device: str
    engine: str
    scans: int

    @property
    def flags(self) -> list[str]:
        """Of python -m inference."""
        return ["--device", self.device, "--engine", self.engine]

    @property
    def scan(self) -> Path:
        """The largest scan of the kit."""
        return max((self.kit / "scans").glob("*.nii.gz"), key=lambda path: path.stat().st_size)

    def save(self, name: str, document: dict[str, Any]) -> None:
        write(document, self.out / name)

    def agreement(self, found: Path) -> dict[str, Any]:
        """A label map beside the CPU's of the same name."""
        ours, theirs = (np.asarray(nib.load(path).dataobj) for path in (found, self.kit / "labels" / found.name))
        same = agreement(ours, theirs)
        return {"voxels": same.voxels, "least_dice": min(same.dice.values(), default=None), "dice": same.dice}

    def inference(self, inputs: Path, outputs: Path, *flags: str | Path) -> str:
        """Run the command line; what it said on stderr. Raises RuntimeError with its last words where it fails."""
        command = [sys.executable, "-m", "inference", inputs, outputs, *self.flags, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-600:]}")
        return done.stderr
