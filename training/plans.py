"""The nnU-Net v2 plans of the paper's student and teacher, as pure edits of a plans.json.

training.recipe.plan adds them to the plans that nnU-Net's planner wrote. Shapes and spacings are (z, y, x), spacings
in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Plans = dict[str, Any]

INSTANCE_NORM = "torch.nn.modules.instancenorm.InstanceNorm3d"

Three = tuple[int, int, int]


@dataclass(frozen=True)
class Student:
    """A small network: what its plan says of it.

    spacing           mm, at which it sees a scan
    patch             voxels of one window of nnU-Net's; its own windows may be larger where it has no norms
    strides           of the encoder's stages
    norms             whether it has instance norms; without them what it says of a voxel does not depend on what else
                      lies in the window
    force_separate_z  nnU-Net's rule for a coarse axis: None goes by the ratio of spacings
    features          channels of the encoder's stages
    """

    spacing: tuple[float, float, float]
    patch: Three
    strides: tuple[Three, ...]
    norms: bool
    force_separate_z: bool | None
    features: tuple[int, ...] = (16, 32, 64, 128, 256)


# By the name of its configuration in plans.json.
STUDENTS = {
    # The paper's: the first pooling leaves z alone, since at 4 mm against 1.2 mm the patch is short there.
    "student": Student(
        spacing=(4.0, 1.2, 1.2),
        patch=(32, 128, 192),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        norms=True,
        force_separate_z=None,
    ),
    # The shipped one. Voxels of nearly one size cost less than half as many operations a scan as the paper's, and with
    # force_separate_z off each axis is resampled by a spline, so that thick slices are not repeated.
    "near_isotropic": Student(
        spacing=(2.5, 1.6, 1.6),
        patch=(96, 128, 160),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        norms=False,
        force_separate_z=False,
    ),
}
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


def _resampling(force_separate_z: bool | None) -> Plans:
    """nnU-Net's default: splines of third order for images, linear for what the network says, nearest for labels."""
    function = "resample_data_or_seg_to_shape"
    common = {"order_z": 0, "force_separate_z": force_separate_z}
    return {
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **common},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **common},
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **common},
    }


def _unet(features: Sequence[int], strides: Sequence[Sequence[int]], norms: bool = True) -> Plans:
    """PlainConvUNet with 3x3x3 kernels, two convolutions a stage and leaky ReLU, and instance norms if asked for."""
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [list(stride) for stride in strides],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": INSTANCE_NORM if norms else None,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True} if norms else None,
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


TEACHER_UNET = _unet([32, 64, 128, 256, 320, 320], [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]])


def unet_of(student: Student) -> Plans:
    """The `architecture` of a student's plan."""
    return _unet(student.features, student.strides, student.norms)


def _configuration(
    name: str, spacing: Sequence[float], patch: Sequence[int], architecture: Plans, force_separate_z: bool | None
) -> Plans:
    return {
        "data_identifier": f"nnUNetPlans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [float(n) for n in patch],
        "spacing": list(spacing),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **_resampling(force_separate_z),
        "batch_dice": False,
        "architecture": architecture,
    }


def with_students_and_teacher(plans: Plans) -> Plans:
    """`plans` with our configurations added; those given stay as they are."""
    edited = deepcopy(plans)
    for name, student in STUDENTS.items():
        edited["configurations"][name] = _configuration(
            name, student.spacing, student.patch, unet_of(student), student.force_separate_z
        )
    edited["configurations"]["teacher"] = _configuration("teacher", TEACHER_SPACING, TEACHER_PATCH, TEACHER_UNET, None)
    return edited


def bare_plans(dataset_name: str) -> Plans:
    """Plans for weights that nnU-Net's own planner never saw: our configurations and our normalisation."""
    return with_students_and_teacher(
        {
            "dataset_name": dataset_name,
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": TEACHER_SPACING,
            "original_median_shape_after_transp": TEACHER_PATCH,
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": SOFT_TISSUE},
        }
    )
