"""A student's parameters -> model.onnx, model_f16.onnx and card.json: see inference.export, which does the work.

    python -m training.export PARAMETERS.pt weights/unified --student near_isotropic

A student is a row of plans.STUDENTS, which inference knows nothing of: its parameters are put into a result folder of
nnU-Net, which is exported as any other is.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from inference.errors import WeightsError
from inference.export import convert
from inference.export.back import write_result_folder
from inference.export.checkpoint import refuse_no_parameters
from inference.export.convert import export, print_card
from inference.export.program import or_exit
from inference.options import ABDOMEN
from training.labels import ORGANS, OUTPUTS, outputs_named
from training.moved import say_moved
from training.network import count_outputs, read_state
from training.plans import STUDENTS, bare_plans

HOSTS = ("liver", "right_kidney", "left_kidney", "spleen", "pancreas", "right_adrenal_gland", "left_adrenal_gland")
DATASET_NAME = "Dataset023_Viscera"


def export_student(weights: Path, out: Path, student: str, *, trained_on: str = "not stated") -> None:
    """Export the parameters of a student, a key of plans.STUDENTS, in a file of PyTorch, in any precision.

    Its labels follow from the number of its outputs. Raises WeightsError if these are not that student's parameters.
    """
    with tempfile.TemporaryDirectory(prefix="viscera-export-") as temporary:
        folder = Path(temporary) / weights.stem
        refuse_no_parameters(weights)
        try:
            state = read_state(weights, student)
            dataset = dataset_of(outputs_named(count_outputs(state)))
        except (ValueError, OSError) as error:
            raise WeightsError(f"{weights} cannot be exported: {error}") from error
        write_result_folder(folder, bare_plans(DATASET_NAME), dataset, student, state)
        export(folder, out, trained_on=trained_on)


def dataset_of(labels: str) -> dict[str, Any]:
    """The dataset.json of a student whose outputs are `labels`, a key of OUTPUTS."""
    names = OUTPUTS[labels]
    return {
        "channel_names": {"0": "CT"},
        "labels": names,
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "orientation": "LPS",
        "one_piece": [name for name in names if name in ORGANS],
        "hosts": {"tumor": list(HOSTS)} if labels == "unified" else {},
        "way": ABDOMEN.name,
    }


def run(options: argparse.Namespace) -> None:
    if options.model.is_file():
        export_student(options.model, options.out, options.student, trained_on=options.trained_on)
        print_card(options.out)
    else:
        say_moved("training.export MODEL_FOLDER", "inference.export MODEL_FOLDER")
        convert.run(options)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__.split("\n\n")[0])
    convert.add_arguments(parser)
    parser.add_argument("--student", choices=sorted(STUDENTS), default="near_isotropic",
                        help="whose parameters a file holds")  # fmt: skip
    or_exit(run, parser.parse_args())


if __name__ == "__main__":
    main()
