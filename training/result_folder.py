"""Weights as an nnU-Net v2 result folder, so that nnU-Net's own predictor and our exporter read the same thing.

    python -m training.result_folder WEIGHTS OUT_FOLDER --labels organ|tumor|unified

takes a folder of exported weights, such as weights/unified, and writes OUT_FOLDER/{plans.json, dataset.json,
fold_0/checkpoint_final.pth}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from inference.card import FILE_NAME
from training.labels import ORGANS, OUTPUTS
from training.network import State, build_student, count_outputs, read_state
from training.plans import bare_plans

DATASET_NAME = "Dataset023_Viscera"


def write_result_folder(state: State, folder: Path, labels: str, student: str) -> None:
    """Write `state`, weights of a student (a key of plans.STUDENTS), with the outputs named by `labels` (of OUTPUTS).

    `one_piece` in dataset.json says which labels are organs of one piece, `orientation` how the array must lie: LPS,
    that is x grows to the patient's left, y to the back and z to the head. nnU-Net's SimpleITK reader does not reorient
    by itself: give it scans stored that way.
    """
    names = OUTPUTS[labels]
    if count_outputs(state) != len(names):
        raise ValueError(f"labels {labels!r} need {len(names)} outputs, the state dict has {count_outputs(state)}")
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": names,
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "orientation": "LPS",
        "one_piece": [name for name in names if name in ORGANS],
    }
    plans = bare_plans(DATASET_NAME)
    network = build_student(len(names), student)
    network.load_state_dict(state)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": student, "fold": 0},
        "inference_allowed_mirroring_axes": None,  # the paper uses no test-time mirroring
    }
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=2) + "\n")
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=2) + "\n")
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="folder of an exported student")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", choices=sorted(OUTPUTS), required=True)
    arguments = parser.parse_args()
    student = json.loads((arguments.weights / FILE_NAME).read_bytes())["source"]["configuration"]
    write_result_folder(read_state(arguments.weights, student), arguments.folder, arguments.labels, student)


if __name__ == "__main__":
    main()
