"""Train one network with nnU-Net: `python -m training.recipe.fit DATASET CONFIGURATION FOLD --trainer student`.

As `nnUNetv2_train`, with the number of epochs as an argument, resuming automatically from a checkpoint, and without
nnU-Net's search for the trainer, which imports every trainer that it has and needs torchvision for that.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from training.recipe.trainers.flare import StudentTrainer, TeacherTrainer

TRAINERS = {"student": StudentTrainer, "teacher": TeacherTrainer}


def fit(dataset: str, configuration: str, fold: str, trainer: str, device: str) -> None:
    """Train to the end; nnU-Net's environment variables say where the data is and where the result goes."""
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    described = json.loads((folder / "dataset.json").read_text())
    number: int | str = fold if fold == "all" else int(fold)
    results = Path(os.environ["nnUNet_results"], dataset, f"{TRAINERS[trainer].__name__}__nnUNetPlans__{configuration}")
    checkpoint = results / f"fold_{fold}" / "checkpoint_latest.pth"
    plans["continue_training"] = checkpoint.exists()  # nnU-Net's own way to tell its trainer
    training = TRAINERS[trainer](plans, configuration, number, described, torch.device(device))
    if checkpoint.exists():
        training.load_checkpoint(str(checkpoint))
    training.run_training()
    if fold != "all":
        training.perform_actual_validation(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name of the folder, such as Dataset021_Organ")
    parser.add_argument("configuration", help="of nnUNetPlans.json: student, teacher, 3d_fullres ...")
    parser.add_argument("fold", help="0..4 or all")
    parser.add_argument("--trainer", choices=sorted(TRAINERS), required=True)
    parser.add_argument("--epochs", type=int, help="default: the paper's, 1500 and 1000")
    parser.add_argument("--iterations", type=int, help="of an epoch; default: nnU-Net's 250")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    for name, value in (("VISCERA_EPOCHS", arguments.epochs), ("VISCERA_ITERATIONS", arguments.iterations)):
        if value:
            os.environ[name] = str(value)
    fit(arguments.dataset, arguments.configuration, arguments.fold, arguments.trainer, arguments.device)


if __name__ == "__main__":
    main()
