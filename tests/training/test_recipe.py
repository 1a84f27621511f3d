"""The recipe on tiny data: datasets and votes by hand, and train.sh from the scans to the exported student."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference.card import read_card
from training import labels as codes
from training.files import to_lps
from training.labelling.outline import outlined
from training.labelling.votes import trust, trusted, vote
from training.labelling.weak_labels import agreed
from training.recipe.data import ALL_ORGANS, split, to_outputs

ROOT = Path(__file__).resolve().parents[2]
IGNORE = 14


def test_a_full_reference_keeps_its_background_and_a_partial_one_has_none() -> None:
    stored = np.array([0, 1, 3, 14], np.uint8)
    organs = frozenset(ALL_ORGANS)
    assert to_outputs(stored, organs, organs, IGNORE).tolist() == [0, 1, 3, 0]
    assert to_outputs(stored, frozenset({1}), organs, IGNORE).tolist() == [14, 1, 14, 14]
    # A reference with tumours does not say which organ lies under them.
    assert to_outputs(stored, organs | {14}, organs, IGNORE).tolist() == [0, 1, 3, 14]
    assert to_outputs(stored, organs | {14}, frozenset({14}), 2).tolist() == [0, 0, 0, 1]


def test_no_patient_is_on_both_sides_of_a_fold() -> None:
    cases = [f"p{patient}_{visit}" for patient in range(7) for visit in range(2)]
    folds = split(cases, r"(p\d+)_")
    assert len(folds) == 5
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == cases
        assert not {case[:2] for case in fold["train"]} & {case[:2] for case in fold["val"]}
    assert {case for fold in folds for case in fold["val"]} == set(cases)
    with pytest.raises(ValueError, match="does not match"):
        split(["x"], r"(p\d+)_")


def test_every_orientation_becomes_lps(blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path) -> None:
    image = nib.load(save_scan(tmp_path / "a.nii.gz", blob, (3.0, 2.0, 2.0), "LPS"))
    turned = nib.load(save_scan(tmp_path / "b.nii.gz", blob[:, ::-1, ::-1], (3.0, 2.0, 2.0), "RAS"))
    assert nib.aff2axcodes(to_lps(turned).affine) == ("L", "P", "S")
    assert np.array_equal(to_lps(turned).dataobj, image.dataobj)


def test_a_vote_by_hand() -> None:
    maps = [np.array(one, np.uint8) for one in ([1, 1, 0, 2, 0], [1, 0, 0, 2, 1], [1, 2, 2, 2, 2])]
    voted = vote(maps)
    assert voted.tolist() == [1, 0, 0, 2, 0]
    found = trust(maps, voted)
    assert found[1] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found[2] == pytest.approx((1 + 1 + 2 / 5) / 3)


def test_what_teachers_doubt_is_ignored_and_what_is_given_stands() -> None:
    maps = [np.array(one, np.uint8) for one in ([1, 1, 0, 2, 0], [1, 0, 0, 2, 1], [1, 2, 2, 2, 2])]
    merged, _, kept = trusted(maps, 0.79, 9)
    assert merged.tolist() == [9, 9, 0, 2, 9]  # label 1 agrees in 0.78, label 2 in 0.8
    assert kept
    assert not trusted(maps, 0.9, 9)[2]
    reference = np.array([0, 2, 0, 0, 0], np.uint8)
    merged, _, _ = trusted(maps, 0.5, 9, reference, frozenset({2}))
    assert merged.tolist() == [1, 2, 0, 9, 0]


@pytest.mark.slow
def test_train_sh_goes_from_scans_to_exported_weights_and_on_after_a_kill(
    blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("nnunetv2")
    hu = blob[::2, ::2, ::2]  # nnU-Net makes patches as large as the scans
    labels = np.zeros(hu.shape, np.uint8)
    for code in ALL_ORGANS:  # every organ is there
        labels[3:10, 2 * code, 10:25] = code
    for name in ("p1_a", "p2_a", "p2_b"):
        save_scan(tmp_path / "organ" / f"{name}_0000.nii.gz", hu, (6.0, 4.0, 4.0))
        save_scan(tmp_path / "organ" / f"{name}.nii.gz", labels, (6.0, 4.0, 4.0))
    save_scan(tmp_path / "more" / "q_0000.nii.gz", hu[:, ::-1, ::-1], (6.0, 4.0, 4.0), "RAS")
    run = tmp_path / "run"
    command: list[str | Path] = [
        ROOT / "training" / "recipe" / "train.sh",
        run,
        "--organ",
        tmp_path / "organ",
        "--unlabelled",
        tmp_path / "more",
    ]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DEVICE": "cpu", "KINDS": "organ", "FOLDS": "1",
        "TEACHER": "3d_fullres", "STUDENT": "3d_fullres", "KEEP": "0", "VISCERA_EPOCHS": "1", "VISCERA_ITERATIONS": "1",
        "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1",
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    card = read_card(run / "weights" / "organ")
    assert (len(card.labels), card.orientation) == (14, "LPS")
    student = json.loads((run / "raw" / "Dataset031_OrganStudent" / "dataset.json").read_text())
    assert student["numTraining"] == 4
    plans = json.loads((run / "preprocessed" / "Dataset031_OrganStudent" / "nnUNetPlans.json").read_text())
    assert plans["configurations"]["student"]["spacing"] == [4.0, 1.2, 1.2]
    # What was done is not done again; what is missing is.
    (run / "done" / "data").unlink()
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0
    assert again.stdout.count("done before") == len(list((run / "done").iterdir())) - 1


def test_weak_teachers_are_believed_where_they_agree_and_in_one_piece() -> None:
    first = np.zeros((40, 6, 6), np.uint8)
    first[2:12] = 1  # the liver, 10 voxels of 2 mm
    first[13:15] = 1  # a piece close by
    first[30:32] = 1  # a piece 36 mm away
    first[20:24, :3] = 3
    first[36:38, :2, :2] = 4  # the pancreas, of which teachers may have found a part
    second = first.copy()
    second[20:24, 2:3] = 0
    labels = agreed([first, second], (2.0, 2.0, 2.0), keep=0.5)
    assert (labels[2:12] == 1).all()
    assert (labels[13:15] == codes.IGNORE).all() and (labels[30:32] == 0).all()
    assert (labels[36:38, :2, :2] == 4).all()
    assert labels[36, 0, 4] == codes.IGNORE and labels[36, 0, 5] == 0  # 6 and 8 mm away
    assert (labels[20:24, :2] == 3).all() and (labels[20:24, 2] == codes.IGNORE).all()
    # Most teachers are enough for a pancreas, not for a spleen.
    third = first.copy()
    third[36:38] = third[20:24] = 0
    labels = agreed([first, second, third], (2.0, 2.0, 2.0), keep=0.5)
    assert (labels[36:38, :2, :2] == 4).all() and (labels[20:24, :3] == codes.IGNORE).all()
    # An aorta that one of them has lost halfway is one piece.
    whole = np.zeros((40, 6, 6), np.uint8)
    whole[:, 2:4, 2:4] = 5
    torn = whole.copy()
    torn[10:25] = 0
    labels = agreed([whole, torn, whole], (2.0, 2.0, 2.0), keep=0.5)
    ends = np.r_[0:10, 25:40]
    assert (labels[ends][:, 2:4, 2:4] == 5).all() and (labels[10:25, 2:4, 2:4] == codes.IGNORE).all()


def test_a_tumour_is_outlined_from_a_point() -> None:
    hu = np.full((60, 60, 44), -100.0)
    labels = np.zeros(hu.shape, np.uint8)
    liver = (slice(5, 55), slice(5, 55), slice(4, 40))
    tumour = (slice(15, 45), slice(15, 45), slice(8, 36))
    tail = (slice(45, 55), slice(30, 33), slice(20, 23))  # a vessel without contrast that touches it
    vessel = (slice(18, 20), slice(18, 20), slice(15, 25))  # one with contrast inside it
    hu[liver], labels[liver] = 120, 1
    hu[tumour] = hu[tail] = 70
    hu[vessel] = 160
    labels[50:55, 50:55, 20:23] = 3
    found = outlined(hu, labels, (1.0, 1.0, 1.0), (32, 32, 22), below=95, organ=1)
    wanted = np.zeros(hu.shape, bool)
    wanted[tumour] = True
    assert 2 * np.sum(wanted & (found == 14)) / (wanted.sum() + np.sum(found == 14)) > 0.85
    assert (found[tail][3:] != 14).all() and (found[vessel] == 14).all()
    assert (found[labels == 3] == 3).all() and (found[5:8] == labels[5:8]).all()
    assert (found[48, 20:30, 12:19] == codes.IGNORE).all()  # the rim
    with pytest.raises(ValueError, match="not well inside"):
        outlined(hu, labels, (1.0, 1.0, 1.0), (50, 8, 20), below=95, organ=1)
