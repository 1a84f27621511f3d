"""Result folders of nnU-Net v1 with tiny networks of random weights, written as version 1 writes them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATCH = (8, 16, 24)
POOLS = [[1, 2, 2], [2, 2, 2]]
KERNELS = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]  # the decoder's differ from the encoder's
POOLS_2D = [[2, 2], [2, 1]]
KERNELS_2D = [[3, 3], [3, 3], [3, 1]]


def write_v1_model(
    folder: Path,
    *,
    classes: int = 4,
    spacing: tuple[float, float, float] = (4.0, 3.0, 3.0),
    transpose: tuple[int, int, int] = (0, 1, 2),
    folds: tuple[str, ...] = ("fold_0",),
    scheme: str = "CT",
    masked: bool = False,
    seed: int = 0,
    planar: bool = False,
    stage: int = 1,
    cascade: bool = False,
) -> Path:
    """A result folder of nnU-Net v1, of one of two stages. `spacing` is on transposed axes, as in its plans.

    planar   its networks are 2D
    cascade  they come after those of stage 0
    """
    torch = pytest.importorskip("torch")
    from inference.export.generic_unet import GenericUNet

    plans = v1_plans(classes, spacing, transpose, planar)
    kernels, pools = ([[1, *axes] for axes in two] for two in (KERNELS_2D, POOLS_2D)) if planar else (KERNELS, POOLS)
    plans["normalization_schemes"][0] = scheme
    plans["use_mask_for_norm"][0] = masked
    folder.mkdir(parents=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans))
    for number, name in enumerate(folds):
        torch.manual_seed(seed + number)
        network = GenericUNet(1 + cascade * classes, classes + 1, [4, 8, 16], kernels, [[1, 1, 1], *pools], 2)
        with torch.no_grad():  # probabilities that differ enough for a label map with structure
            for layer in network.seg_outputs.parameters():
                layer.mul_(8)
        (folder / name).mkdir()
        file = folder / name / "model_final_checkpoint.model"
        checkpoint = {
            "epoch": 1,
            "state_dict": OrderedDict(
                (name, value.squeeze(2) if planar and value.ndim == 5 else value)
                for name, value in network.state_dict().items()
            ),
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.01, "nesterov": True}]},
            "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(0.5)], [np.float64(0.25)], [], [np.float32(0.1)]),
            "best_stuff": (None, np.float64(1), np.float64(2)),
            "amp_grad_scaler": {"scale": 65536.0, "growth_tracker": 7},
        }
        torch.save(checkpoint, file, _use_new_zipfile_serialization=number % 2 == 0)  # PyTorch 1.5 had the other form
        init = ("plans.pkl", number, str(folder), "Task999_Tiny", True, stage, True, False, True)
        told = OrderedDict(init=init, name="nnUNetTrainerV2" + "CascadeFullRes" * cascade, plans=plans)
        told["class"] = "<class 'nnunet.training.network_training.nnUNetTrainerV2.nnUNetTrainerV2'>"
        file.with_name(f"{file.name}.pkl").write_bytes(pickle.dumps(told))
    return folder


def v1_plans(
    classes: int, spacing: tuple[float, ...], transpose: tuple[int, ...], planar: bool = False
) -> dict[str, Any]:
    """The plans of two stages, with most of what a planner leaves in them."""
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [1, 2, 2],
        "patch_size": np.array(PATCH[1:] if planar else PATCH),
        "median_patient_size_in_voxels": np.array([20, 40, 48]),
        "current_spacing": np.array(spacing),
        "original_spacing": np.array(spacing),
        "do_dummy_2D_data_aug": np.bool_(True),
        "pool_op_kernel_sizes": POOLS_2D if planar else POOLS,
        "conv_kernel_sizes": KERNELS_2D if planar else KERNELS,
    }
    statistics = OrderedDict(
        median=np.float32(60), mean=np.float64(80), sd=np.float64(70), mn=np.float32(-900), mx=np.float32(1200),
        percentile_99_5=np.float64(240), percentile_00_5=np.float64(-160),
    )  # fmt: skip
    return {
        "num_stages": 2,
        "num_modalities": 1,
        "modalities": {0: "CT"},
        "normalization_schemes": OrderedDict({0: "CT"}),
        "dataset_properties": {
            "all_sizes": [(20, 40, 48)],
            "all_spacings": [np.array(spacing)],
            "all_classes": list(range(1, classes + 1)),
            "modalities": {0: "CT"},
            "intensityproperties": OrderedDict({0: OrderedDict(local_props=OrderedDict(a=statistics), **statistics)}),
            "size_reductions": OrderedDict(a=np.float64(0.9)),
        },
        "list_of_npz_files": ["/home/somebody/nnUNet_cropped_data/Task999_Tiny/a.npz"],
        "original_spacings": [np.array(spacing)],
        "original_sizes": [(20, 40, 48)],
        "preprocessed_data_folder": "/home/somebody/nnUNet_preprocessed/Task999_Tiny",
        "num_classes": classes,
        "all_classes": list(range(1, classes + 1)),
        "base_num_features": 4,
        "use_mask_for_norm": OrderedDict({0: False}),
        "keep_only_largest_region": None,
        "min_region_size_per_class": None,
        "min_size_per_class": None,
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": {0: stage | {"current_spacing": 2 * np.array(spacing)}, 1: stage},
        "preprocessor_name": "PreprocessorFor2D" if planar else "GenericPreprocessor",
        "conv_per_stage": 2,
    }
