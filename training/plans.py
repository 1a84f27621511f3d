"""The nnU-Net v2 plans of the paper's student and teacher, as pure edits of a plans.json.

    python -m training.plans PLANS.json

adds the configurations `student`, `plain_student` and `teacher` to a plans.json that nnU-Net's planner wrote. Shapes
and spacings are (z, y, x), spacings in mm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

Plans = dict[str, Any]

INSTANCE_NORM = "torch.nn.modules.instancenorm.InstanceNorm3d"

STUDENT_SPACING = [4.0, 1.2, 1.2]
STUDENT_PATCH = [32, 128, 192]
# The student without norms trains on patches of up to 72 planes, and its windows need not overlap by half.
PLAIN_STUDENT_PATCH = [64, 128, 192]
TEACHER_SPACING = [2.5, 0.86, 0.86]
# Where nnU-Net's planner arrives for a 512x512x200 abdomen at the teacher's spacing with its default memory target.
TEACHER_PATCH = [48, 160, 224]

# What CTNormalization reads: clip to the two percentiles, minus mean, over std (all HU).
# A soft-tissue window with the centre of contrast-filled parenchyma: it suits native and contrast scans alike.
SOFT_TISSUE = {
    "max": 3071.0,
    "mean": 80.0,
    "median": 80.0,
    "min": -1024.0,
    "percentile_00_5": -160.0,
    "percentile_99_5": 240.0,
    "std": 70.0,
}

_RESAMPLING = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}


def _unet(features: list[int], strides: list[list[int]], norm: str | None = INSTANCE_NORM) -> Plans:
    """PlainConvUNet with 3x3x3 kernels, two convolutions a stage, `norm` and leaky ReLU."""
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": strides,
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": norm,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True} if norm else None,
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


# The first pooling leaves z alone: at 4 mm against 1.2 mm the patch is short there.
_STUDENT: tuple[list[int], list[list[int]]] = (
    [16, 32, 64, 128, 256],
    [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
)
STUDENT_UNET = _unet(*_STUDENT)
# The student whose norms' statistics became constants in its convolutions (training.network.fold_norms).
PLAIN_STUDENT_UNET = _unet(*_STUDENT, norm=None)
TEACHER_UNET = _unet([32, 64, 128, 256, 320, 320], [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]])


def coarser(patch: Sequence[int], times: float) -> tuple[int, int, int]:
    """About the mm of `patch` (z, y, x) in voxels `times` as large in the plane, three or more at the lowest stage."""
    z, y, x = patch
    return (z, max(round(y / times / 16), 3) * 16, max(round(x / times / 16), 3) * 16)


def _configuration(name: str, spacing: list[float], patch: list[int], architecture: Plans) -> Plans:
    return {
        "data_identifier": f"nnUNetPlans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": [float(n) for n in patch],
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **_RESAMPLING,
        "batch_dice": False,
        "architecture": architecture,
    }


def with_student_and_teacher(plans: Plans) -> Plans:
    """`plans` with our configurations added; those given stay as they are."""
    edited = deepcopy(plans)
    edited["configurations"]["student"] = _configuration("student", STUDENT_SPACING, STUDENT_PATCH, STUDENT_UNET)
    edited["configurations"]["plain_student"] = _configuration(
        "student", STUDENT_SPACING, PLAIN_STUDENT_PATCH, PLAIN_STUDENT_UNET
    )
    edited["configurations"]["teacher"] = _configuration("teacher", TEACHER_SPACING, TEACHER_PATCH, TEACHER_UNET)
    return edited


def bare_plans(dataset_name: str) -> Plans:
    """Plans for weights that nnU-Net's own planner never saw: our configurations and our normalisation."""
    return with_student_and_teacher(
        {
            "dataset_name": dataset_name,
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": STUDENT_SPACING,
            "original_median_shape_after_transp": STUDENT_PATCH,
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": SOFT_TISSUE},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path)
    path: Path = parser.parse_args().plans
    path.write_text(json.dumps(with_student_and_teacher(json.loads(path.read_text())), indent=4) + "\n")


if __name__ == "__main__":
    main()
