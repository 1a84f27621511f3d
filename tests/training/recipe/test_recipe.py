"""The recipe on tiny data: datasets by hand, and train.sh from the scans to the exported student."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.card_file import read_card
from tests.conftest import ROOT
from training.recipe.data import ALL_ORGANS, split, to_outputs

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
        "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1",
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
