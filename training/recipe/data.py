"""Folders of scans and labels -> nnU-Net raw datasets: `python -m training.recipe.data RAW --organ DIR ...`.

A folder holds X_0000.nii.gz, and X.nii.gz with FLARE's label codes where it is labelled. Which labels a folder's
references know is what decides what they teach:

    --organ DIR          all 13 organs
    --tumor DIR          the tumour
    --partial DIR:1,2,3  only the labels given; every other voxel is unknown and is ignored by the loss
    --unlabelled DIR     none: for pseudo-labels

written as Dataset021_Organ (labels 0..13) and Dataset022_Tumor (0, 1), each with its `ignore` label, every scan
turned to LPS. splits_final.json holds five folds by patient, in nnU-Net's format.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from inference.names import labels_file
from training.files import ENDING, load_pair, scan_file, scans_of, to_lps
from training.labels import ORGANS, OUTPUTS, TUMOR

FOLDS = 5
SEED = 2023
DATASETS = {"organ": "Dataset021_Organ", "tumor": "Dataset022_Tumor"}
ALL_ORGANS = frozenset(ORGANS.values())
CODES = {"organ": ALL_ORGANS, "tumor": frozenset({TUMOR})}  # FLARE's, of the labels in each dataset


@dataclass(frozen=True)
class Labelled:
    """A scan, its reference (None: there is none), and the labels (FLARE codes) that the reference knows."""

    case: str
    scan: Path
    reference: Path | None
    known: frozenset[int]


def find_scans(folder: Path, known: Iterable[int]) -> list[Labelled]:
    """The scans of a folder. Raises ValueError, naming the file, where a reference should be there and is not."""
    found = []
    for case, scan in scans_of(folder).items():
        reference = labels_file(folder, case) if known else None
        if reference is not None and not reference.is_file():
            raise ValueError(f"{scan} has no reference {reference.name} beside it")
        found.append(Labelled(case, scan, reference, frozenset(known)))
    if not found:
        raise ValueError(f"{folder} holds no scan: X_0000{ENDING} was looked for")
    return found


def write_dataset(raw: Path, kind: str, scans: Sequence[Labelled]) -> Path:
    """Write one of DATASETS from the scans that know some of its labels."""
    codes, names = CODES[kind], OUTPUTS[kind]
    ignore = len(names)
    folder = raw / DATASETS[kind]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    used = [scan for scan in scans if scan.known & codes]
    for scan in used:
        assert scan.reference is not None
        image, reference = load_pair(scan.scan, scan.reference)
        stored = np.asarray(reference.dataobj).astype(np.uint8)
        label = to_outputs(stored, scan.known, codes, ignore)
        nib.save(to_lps(image), scan_file(folder / "imagesTr", scan.case))
        nib.save(to_lps(nib.Nifti1Image(label, image.affine)), labels_file(folder / "labelsTr", scan.case))
    dataset: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": {**names, "ignore": ignore},
        "numTraining": len(used),
        "file_ending": ENDING,
        "orientation": "LPS",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=2) + "\n")
    return folder


def to_outputs(stored: np.ndarray, known: frozenset[int], codes: frozenset[int], ignore: int) -> np.ndarray:
    """FLARE codes -> a dataset's own labels.

    Where the reference does not know all of `codes`, its background is no background: it becomes `ignore`.
    """
    label = np.full(stored.shape, 0 if codes <= known else ignore, np.uint8)
    for code in codes & known:
        label[stored == code] = code if len(codes) > 1 else 1
    # A tumour lies in an organ, and an organ network is to see the organ: which one, the reference does not say.
    if TUMOR in known and TUMOR not in codes:
        label[stored == TUMOR] = ignore
    return label


def split(cases: Sequence[str], patient: str) -> list[dict[str, list[str]]]:
    """Five folds in which no patient is on both sides; `patient` is a pattern whose first group names the patient."""
    by_patient: dict[str, list[str]] = {}
    for case in sorted(cases):
        found = re.match(patient, case)
        if not found:
            raise ValueError(f"case {case!r} does not match the pattern {patient!r} of patients")
        by_patient.setdefault(found[1], []).append(case)
    patients = list(np.random.default_rng(SEED).permutation(sorted(by_patient)))
    folds = []
    for fold in range(FOLDS):
        held_out = set(patients[fold::FOLDS]) if len(patients) > 1 else set()
        validation = [case for name in sorted(held_out) for case in by_patient[name]]
        training = [case for case in sorted(cases) if case not in validation]
        folds.append({"train": training, "val": validation or training})
    return folds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="nnUNet_raw")
    parser.add_argument("--organ", type=Path, action="append", default=[])
    parser.add_argument("--tumor", type=Path, action="append", default=[])
    parser.add_argument("--partial", action="append", default=[], metavar="DIR:LABELS")
    parser.add_argument("--unlabelled", type=Path, action="append", default=[])
    parser.add_argument("--patient", default="(.*)", help="pattern; its first group names a case's patient")
    arguments = parser.parse_args()
    try:
        scans = [scan for folder in arguments.organ for scan in find_scans(folder, CODES["organ"])]
        scans += [scan for folder in arguments.tumor for scan in find_scans(folder, CODES["tumor"])]
        for text in arguments.partial:
            name, _, codes = text.rpartition(":")
            scans += find_scans(Path(name), {int(code) for code in codes.split(",")})
        for kind in DATASETS:
            folder = write_dataset(arguments.raw, kind, scans)
            cases = [scan.case for scan in scans if scan.known & CODES[kind]]
            (folder / "splits_final.json").write_text(json.dumps(split(cases, arguments.patient), indent=2) + "\n")
            print(f"{folder}: {len(cases)} labelled scans")
        images = arguments.raw / "unlabelled"
        images.mkdir(exist_ok=True)
        for scan in [scan for folder in arguments.unlabelled for scan in find_scans(folder, ())]:
            nib.save(to_lps(nib.load(scan.scan)), scan_file(images, scan.case))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
