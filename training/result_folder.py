"""Weights as an nnU-Net v2 result folder, so that nnU-Net's own predictor and our exporter read the same thing.

    python -m training.result_folder WEIGHTS... OUT_FOLDER --labels organ|tumor|unified

takes a state dict of PyTorch or a folder of exported weights, such as weights/unified, or the mean of several, and
writes OUT_FOLDER/{plans.json, dataset.json, fold_0/checkpoint_final.pth}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from training.labels import ORGANS, OUTPUTS
from training.network import State, averaged, build_student, count_outputs, has_norms, lowered, read_state
from training.plans import bare_plans, coarser

DATASET_NAME = "Dataset023_Viscera"


def write_result_folder(state: State, folder: Path, labels: str, coarse: float = 1.0) -> None:
    """Write `state` (float32 weights of the student) with the outputs named by `labels` (a key of OUTPUTS).

    `coarse` is that of `training.train`: how many times the plan's spacing in the plane it has learned.

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
    norms = has_norms(state)
    configuration = "student" if norms else "plain_student"
    plans = bare_plans(DATASET_NAME)
    plan = plans["configurations"][configuration]
    z, y, x = plan["spacing"]
    plan |= {"spacing": [z, y * coarse, x * coarse], "patch_size": list(coarser(plan["patch_size"], coarse))}
    network = build_student(len(names), norms)
    network.load_state_dict(state)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": configuration, "fold": 0},
        "inference_allowed_mirroring_axes": None,  # the paper uses no test-time mirroring
    }
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=2) + "\n")
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=2) + "\n")
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+", help="several are averaged")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", choices=sorted(OUTPUTS), required=True)
    parser.add_argument("--lower", nargs=2, action="append", default=[], metavar=("NAME", "LOGITS"),
                        help="take LOGITS from a label's logit: see training.network.lowered")  # fmt: skip
    parser.add_argument("--coarse", type=float, default=1.0, help="as training.train was told")
    arguments = parser.parse_args()
    names = OUTPUTS[arguments.labels]
    by = {names[name]: float(logits) for name, logits in arguments.lower}
    state = averaged([read_state(weights) for weights in arguments.weights])
    write_result_folder(lowered(state, by), arguments.folder, arguments.labels, arguments.coarse)


if __name__ == "__main__":
    main()
