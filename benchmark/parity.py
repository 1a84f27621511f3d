"""Labels of `python -m inference --plan dense --precision f32` beside nnU-Net's own, from one checkpoint.

    python -m benchmark parity MODEL_FOLDER SCANS... [--fold all] [--tta] [--engine openvino]

MODEL_FOLDER is an nnU-Net v2 result folder. It is exported, and both programs segment every scan by their own command
lines; nnU-Net (the extra `export`) with --disable_tta unless --tta is given. Of a case of several channels
SCANS has the first. Exit code 1 where a scan falls below the thresholds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.peers.peer import turned
from benchmark.process import start
from inference.card_file import read_card
from inference.formats.reading import read_scan
from inference.names import CHANNEL, case_of
from inference.quantities import dice

SAME_VOXELS = 0.9995  # share of voxels with the same label
SAME_LABEL = 0.995  # Dice of each label that either map holds


@dataclass(frozen=True)
class Agreement:
    """Of two label maps: the share of voxels that agree, and the Dice of each label by value."""

    voxels: float
    dice: dict[int, float]

    @property
    def enough(self) -> bool:
        """True at or above both thresholds."""
        return self.voxels >= SAME_VOXELS and all(dice >= SAME_LABEL for dice in self.dice.values())


def agreement(ours: np.ndarray, theirs: np.ndarray) -> Agreement:
    """Compare two label maps of one shape. Raises ValueError where the shapes differ."""
    if ours.shape != theirs.shape:
        raise ValueError(f"label maps of shapes {ours.shape} and {theirs.shape} cannot be compared")
    return Agreement(float((ours == theirs).mean()), dice(ours, theirs))


def compare(
    model_folder: Path, scans: Sequence[Path], *, fold: str | None = None, engine: str, tta: bool = False
) -> dict[str, Agreement]:
    """Agreement of each scan by case name. Raises as `export`, CalledProcessError where a program fails, and ValueError
    where a scan is no file, or of another format than the network's."""
    if missing := [scan for scan in scans if not scan.is_file()]:
        raise ValueError(f"{missing[0]} is not a file: name each scan, such as X{CHANNEL}.nii.gz")
    if len({case_of(scan.name) for scan in scans}) < len(scans):
        raise ValueError("two of the scans have the same case name")
    from inference.export.convert import export  # PyTorch, of which nothing else here knows

    with tempfile.TemporaryDirectory(prefix="viscera-parity-") as temporary:
        network = Path(temporary) / "network"
        with redirect_stdout(sys.stderr):
            export(model_folder, network, fold=fold)
        folds = json.loads((network / "card.json").read_bytes())["source"]["fold"].replace("fold_", "")
        return compare_exported(network, model_folder, scans, fold=folds, engine=engine, tta=tta)


def compare_exported(
    network: Path, model_folder: Path, scans: Sequence[Path], *, fold: str, engine: str, tta: bool = False
) -> dict[str, Agreement]:
    """The same with the network that was exported from the result folder."""
    ending: str = json.loads((model_folder / "dataset.json").read_bytes())["file_ending"]
    if other := [scan for scan in scans if not scan.name.endswith(ending)]:
        raise ValueError(f"{other[0]} does not end in {ending} as its training scans do: nnU-Net reads no other")
    with tempfile.TemporaryDirectory(prefix="viscera-parity-") as temporary:
        work = Path(temporary)
        card = read_card(network)
        # nnU-Net takes a scan as its file stores it. Where the network knows one orientation only,
        # both get the scan turned to it; else ours would be right and nnU-Net's upside down.
        inputs = work / "inputs"
        inputs.mkdir()
        names = []
        for scan in scans:
            names.append(case_of(scan.name))
            for number in range(len(card.channels)):  # of several, the others lie beside the first
                channel = scan.with_name(scan.name.replace(CHANNEL, f"_{number:04d}")) if number else scan
                turned(channel, card.orientation, inputs / f"{names[-1]}_{number:04d}{ending}")
        start(
            inputs, work / "ours", "--weights", network.parent, "--networks", network.name,
            "--device", "cpu", "--engine", engine, "--plan", "dense", "--precision", "f32", *["--tta"] * tta,
        )  # fmt: skip
        subprocess.run(
            [Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder"), "-i", inputs, "-o",
             work / "theirs", "-m", model_folder, "-f", *fold.split(","), *["--disable_tta"] * (not tta),
             "-device", "cpu", "-npp", "1", "-nps", "1"],
            check=True, stdout=sys.stderr,
        )  # fmt: skip
        return {
            name: agreement(_voxels(work / "ours" / f"{name}.nii.gz"), _voxels(work / "theirs" / f"{name}{ending}"))
            for name in names
        }


def _voxels(path: Path) -> np.ndarray:
    return read_scan(path, ct=[False], abdominal=False).voxels.astype(np.uint8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=Path, help="nnU-Net v2 result folder")
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--fold", help="as for the exporter")
    parser.add_argument("--tta", action="store_true", help="both with test-time mirroring")
    parser.add_argument("--engine", default="openvino", help="what runs Viscera's side")


def run(options: argparse.Namespace) -> None:
    """Print the agreement of each scan. Ends the process with a sentence if one is below the thresholds."""
    results = compare(options.model_folder, options.scans, fold=options.fold, engine=options.engine, tta=options.tta)
    for name, found in results.items():
        dice = "  ".join(f"{value}: {score:.5f}" for value, score in found.dice.items()) or "no label in either"
        print(f"{name}: {100 * found.voxels:.4f} % of voxels equal; Dice by label  {dice}")
    failed = [name for name, found in results.items() if not found.enough]
    if failed:
        sys.exit(f"below {100 * SAME_VOXELS:.2f} % of voxels or Dice {SAME_LABEL}: {', '.join(failed)}")


if __name__ == "__main__":
    from benchmark.__main__ import old_name

    old_name("parity")
