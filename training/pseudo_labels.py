"""Labels for unlabelled scans from an ensemble of teachers, and the dataset of the student that learns from them.

    python -m training.pseudo_labels TEACHERS... --scans DIR --dataset FROM --into TO

Each teacher is a folder of exported networks, one for each fold of the paper. Every teacher segments every scan by
`python -m inference`; a voxel takes the label of most teachers. Partial references keep their word: a voxel that a
reference labels has that label, and no other voxel has a label that the reference knows.

What to keep: the teachers' agreement on a label in a scan is the mean Dice between each teacher and the vote. A
label below --keep is not trusted in that scan: every voxel that any teacher gave it is ignored by the loss. A scan
in which fewer than half of the labels found are trusted is left out. agreement.json says all of it.

TO is the nnU-Net raw dataset FROM with the kept scans added; they have the labels of FROM.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from training.data import ENDING

LEAST_SHARE = 0.5  # of the labels found in a scan, for the scan to be kept


def vote(maps: Sequence[np.ndarray]) -> np.ndarray:
    """The label that most of the maps give each voxel, uint8; among equals the lowest, so background first."""
    labels = np.unique(np.concatenate([np.unique(one) for one in maps]))
    best = np.zeros(maps[0].shape, np.uint8)
    most = np.full(maps[0].shape, -1, np.int8)
    for label in labels:
        count = np.zeros(maps[0].shape, np.int8)
        for one in maps:
            count += one == label
        better = count > most
        best[better], most[better] = label, count[better]
    return best


def agreement(maps: Sequence[np.ndarray], voted: np.ndarray) -> dict[int, float]:
    """Label -> mean Dice of each map with the vote, for every label that any map or the vote holds."""
    labels = {int(label) for one in (*maps, voted) for label in np.unique(one)} - {0}
    result = {}
    for label in sorted(labels):
        wanted = voted == label
        dice = [2 * np.sum((one == label) & wanted) / max(np.sum(one == label) + wanted.sum(), 1) for one in maps]
        result[label] = float(np.mean(dice))
    return result


def merge(
    maps: Sequence[np.ndarray],
    keep: float,
    ignore: int,
    reference: np.ndarray | None = None,
    known: frozenset[int] = frozenset(),
) -> tuple[np.ndarray, dict[int, float], bool]:
    """Pseudo-labels of one scan, the agreement by label, and whether the scan is kept."""
    merged = vote(maps)
    agreed = agreement(maps, merged)
    doubted = [label for label, dice in agreed.items() if dice < keep and label not in known]
    for label in doubted:
        for one in maps:
            merged[one == label] = ignore
    if reference is not None:
        for label in known:
            merged[(merged == label) & (reference != label)] = (
                ignore  # the teachers were wrong; what it is is not known
            )
            merged[reference == label] = label
    kept = not agreed or len(doubted) <= (1 - LEAST_SHARE) * len(agreed)
    return merged, agreed, kept


def segment_all(teachers: Sequence[Path], scans: Path, work: Path) -> list[Path]:
    """Segment the folder `scans` with every teacher by `python -m inference`; the folders of their label maps."""
    folders = [work / f"teacher-{number}" for number in range(len(teachers))]
    for teacher, folder in zip(teachers, folders, strict=True):
        # --resume: a stage that was killed goes on where it was.
        command: list[str | Path] = [sys.executable, "-m", "inference", scans, folder, "--weights", teacher, "--resume"]
        subprocess.run(command, check=True)
    return folders


def student_dataset(dataset: Path, scans: Path, labels: Path, out: Path) -> int:
    """Copy the raw dataset to `out` and add every scan that has a file in `labels`; returns how many there are now."""
    shutil.copytree(dataset, out, dirs_exist_ok=True)
    for label in labels.glob(f"*{ENDING}"):
        image = label.name.replace(ENDING, f"_0000{ENDING}")
        shutil.copy(label, out / "labelsTr" / label.name)
        shutil.copy(scans / image, out / "imagesTr" / image)
    count = len(list((out / "labelsTr").glob(f"*{ENDING}")))
    described = json.loads((out / "dataset.json").read_text()) | {"numTraining": count}
    (out / "dataset.json").write_text(json.dumps(described, indent=2) + "\n")
    (out / "splits_final.json").unlink(missing_ok=True)  # the student trains on all
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, nargs="+", help="folders of exported networks, one a fold")
    parser.add_argument("--scans", type=Path, required=True, help="folder of X_0000.nii.gz")
    parser.add_argument("--dataset", type=Path, required=True, help="the teachers' raw dataset")
    parser.add_argument("--into", type=Path, required=True, help="the student's raw dataset")
    parser.add_argument("--keep", type=float, default=0.8, help="least agreement for a label to be trusted")
    parser.add_argument(
        "--references", type=Path, help="folder of partial references X.nii.gz, in the dataset's labels"
    )
    parser.add_argument("--known", default="", help="labels that the partial references know, such as 1,3")
    arguments = parser.parse_args()
    known = frozenset(int(label) for label in arguments.known.split(",") if label)
    if arguments.references and not known:
        parser.error("--references needs --known")
    ignore = int(json.loads((arguments.dataset / "dataset.json").read_text())["labels"]["ignore"])
    work = arguments.into.with_name(f"pseudo-{arguments.into.name}")  # nnU-Net reads names that begin with Dataset
    labels = work / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    there = any(arguments.scans.glob(f"*_0000{ENDING}"))
    folders = segment_all(arguments.teachers, arguments.scans, work) if there else []
    report = {}
    for path in sorted(folders[0].glob(f"*{ENDING}")) if there else ():
        first = nib.load(path)
        maps = [np.asarray(nib.load(folder / path.name).dataobj, np.uint8) for folder in folders]
        given = arguments.references / path.name if arguments.references else None
        reference = np.asarray(nib.load(given).dataobj).astype(np.uint8) if given and given.is_file() else None
        merged, agreed, kept = merge(maps, arguments.keep, ignore, reference, known)
        report[path.name.removesuffix(ENDING)] = {"kept": kept, "agreement": agreed}
        said = ", ".join(f"{label}: {dice:.2f}" for label, dice in agreed.items())
        print(f"{path.name}: {'kept' if kept else 'left out'}; agreement by label {said}")
        if kept:
            nib.save(nib.Nifti1Image(merged, first.affine, first.header), labels / path.name)
    (work / "agreement.json").write_text(json.dumps(report, indent=2) + "\n")
    count = student_dataset(arguments.dataset, arguments.scans, labels, arguments.into)
    print(f"{arguments.into}: {count} scans")


if __name__ == "__main__":
    main()
