"""nnU-Net's fingerprint, plans and preprocessed scans: `python -m training.recipe.plan DATASET CONFIGURATION`.

As nnUNetv2_extract_fingerprint, nnUNetv2_plan_experiment and nnUNetv2_preprocess, in one process: each start of
nnU-Net imports PyTorch and half of SciPy. The students' and the teacher's configurations are added to the plans.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

from training.plans import with_students_and_teacher


def plan(dataset: str, configuration: str) -> None:
    """nnU-Net's environment variables say where the raw data is and where the preprocessed goes."""
    number = int(dataset.removeprefix("Dataset")[:3])
    raw, out = (Path(os.environ[name]) / dataset for name in ("nnUNet_raw", "nnUNet_preprocessed"))
    extract_fingerprints([number], num_processes=1, clean=False)
    plan_experiments([number])
    plans = out / "nnUNetPlans.json"
    plans.write_text(json.dumps(with_students_and_teacher(json.loads(plans.read_text())), indent=4) + "\n")
    if (raw / "splits_final.json").exists():
        shutil.copy(raw / "splits_final.json", out)
    preprocess([number], configurations=[configuration], num_processes=[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name of the folder, such as Dataset021_Organ")
    parser.add_argument("configuration", help="of nnUNetPlans.json: student, teacher, 3d_fullres ...")
    arguments = parser.parse_args()
    plan(arguments.dataset, arguments.configuration)


if __name__ == "__main__":
    main()
