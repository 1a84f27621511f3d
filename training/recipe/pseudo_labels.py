"""Labels for unlabelled scans from an ensemble of teachers, and the dataset of the student that learns from them.

    python -m training.recipe.pseudo_labels TEACHERS... --scans DIR --dataset FROM --into TO

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
from pathlib import Path

import nibabel as nib
import numpy as np

from inference.names import labels_file
from training.files import label_maps_of, scan_file, scans_of
from training.labelling.votes import segmented, trusted


def student_dataset(dataset: Path, scans: Path, labels: Path, out: Path) -> int:
    """Copy the raw dataset to `out` and add every scan that has a file in `labels`; returns how many there are now."""
    shutil.copytree(dataset, out, dirs_exist_ok=True)
    for case, label in label_maps_of(labels).items():
        shutil.copy(label, labels_file(out / "labelsTr", case))
        shutil.copy(scan_file(scans, case), scan_file(out / "imagesTr", case))
    count = len(label_maps_of(out / "labelsTr"))
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
    report = {}
    for case, first, maps in segmented(arguments.teachers, arguments.scans, work) if scans_of(arguments.scans) else ():
        given = labels_file(arguments.references, case) if arguments.references else None
        reference = np.asarray(nib.load(given).dataobj).astype(np.uint8) if given and given.is_file() else None
        merged, agreed, kept = trusted(maps, arguments.keep, ignore, reference, known)
        report[case] = {"kept": kept, "agreement": agreed}
        said = ", ".join(f"{label}: {dice:.2f}" for label, dice in agreed.items())
        print(f"{case}: {'kept' if kept else 'left out'}; agreement by label {said}")
        if kept:
            nib.save(nib.Nifti1Image(merged, first.affine, first.header), labels_file(labels, case))
    (work / "agreement.json").write_text(json.dumps(report, indent=2) + "\n")
    count = student_dataset(arguments.dataset, arguments.scans, labels, arguments.into)
    print(f"{arguments.into}: {count} scans")


if __name__ == "__main__":
    main()
