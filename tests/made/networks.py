"""Tiny networks of random weights: result folders of nnU-Net, and their exports.

`python -m tests.made.networks` exports those of tests/networks anew, which is needed where the exporter writes other
graphs or cards. They are committed so that tests of the command need neither PyTorch nor nnU-Net.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TINY_PATCH = [8, 16, 24]


def write_model(
    folder: Path,
    *,
    folds: Sequence[str] = ("0",),
    trainer: str = "nnUNetTrainer",
    mirror_axes: tuple[int, ...] | None = (0, 1, 2),
    **changes: Any,
) -> Path:
    """A result folder of nnU-Net v2 with a tiny network of random weights; see `tiny_plan` for the changes.

    trainer  with nnUNetTrainerBN the network has batch norms, whatever the plan says, and statistics of a training
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("nnunetv2")
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset = tiny_plan(**changes)
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.manual_seed(changes.get("seed", 0))
    configuration = changes.get("name", "tiny")
    architecture = plans["configurations"][configuration]["architecture"]
    manager = PlansManager(plans).get_label_manager(dataset)
    heads = manager.num_segmentation_heads
    inputs = len(dataset["channel_names"]) + (len(manager.foreground_labels) if changes.get("previous") else 0)
    arguments = deepcopy(architecture["arch_kwargs"])
    if trainer == "nnUNetTrainerBN":
        arguments["norm_op"] = "torch.nn.BatchNorm" + arguments["norm_op"][-2:]
        arguments |= {"norm_op_kwargs": {"eps": 1e-5, "affine": True}}
    for fold in folds:
        network = get_network_from_plans(
            architecture["network_class_name"],
            arguments,
            architecture["_kw_requires_import"],
            inputs,
            heads,
            deep_supervision=True,
        )
        with torch.no_grad():  # logits that differ enough between channels for a label map with structure
            for layer in network.decoder.seg_layers:
                layer.weight *= 8
            for name, buffer in network.named_buffers():
                if "running" in name:
                    buffer.uniform_(0.5, 1.5)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": trainer,
            "init_args": {"configuration": configuration, "fold": fold if fold == "all" else int(fold)},
            "inference_allowed_mirroring_axes": mirror_axes,
            "logging": {"train_losses": [np.float32(0.5)], "dice": [np.float64(0.25)]},  # nnU-Net's are NumPy's too
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def tiny_plan(
    *,
    name: str = "tiny",
    architecture: str = "PlainConvUNet",
    labels: int = 5,
    spacing: tuple[float, ...] = (4.0, 3.0, 3.0),
    transpose: tuple[int, int, int] = (0, 1, 2),
    orientation: str | None = "LPS",
    seed: int = 0,
    channels: Sequence[str] = ("CT",),
    configuration: Mapping[str, Any] | None = None,
    arch_kwargs: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    reader: str = "SimpleITKIO",
    previous: str | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """plans.json and dataset.json of a U-Net with three stages of 4, 8 and 12 features; a 2D one for two spacings.

    channels                names of the input channels
    configuration, dataset  fields of the plan's configuration and of dataset.json in place of the usual ones
    arch_kwargs             arguments of the network in place of the usual ones, or beside them
    previous  the configuration of the earlier stage, for the later one of a cascade
    """
    from training.plans import bare_plans

    plans = bare_plans("Dataset999_Tiny")
    tiny = deepcopy(plans["configurations"].pop("student"))
    del plans["configurations"]["near_isotropic"], plans["configurations"]["teacher"]
    tiny |= {"patch_size": TINY_PATCH, "spacing": list(spacing), "data_identifier": "nnUNetPlans_tiny"}
    tiny["architecture"]["network_class_name"] = f"dynamic_network_architectures.architectures.unet.{architecture}"
    arch = tiny["architecture"]["arch_kwargs"]
    arch |= {"n_stages": 3, "features_per_stage": [4, 8, 12], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
    arch |= {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "n_conv_per_stage_decoder": [1, 1]}
    if len(spacing) == 2:
        tiny["patch_size"] = TINY_PATCH[1:]
        arch |= {key: [axes[1:] for axes in arch[key]] for key in ("strides", "kernel_sizes")}
        arch |= {"conv_op": "torch.nn.Conv2d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d"}
    if architecture == "ResidualEncoderUNet":
        arch["n_blocks_per_stage"] = [1, 2, 2]
        del arch["n_conv_per_stage"]
    else:
        arch["n_conv_per_stage"] = [2, 2, 2]
    arch |= arch_kwargs or {}
    tiny["architecture"]["_kw_requires_import"] += [name for name in ("block",) if name in arch]
    tiny |= {"normalization_schemes": ["CTNormalization"] * len(channels), "use_mask_for_norm": [False] * len(channels)}
    if previous:
        tiny["previous_stage"] = previous
    plans["configurations"][name] = tiny | dict(configuration or {})
    plans["image_reader_writer"] = reader
    (usual,) = plans["foreground_intensity_properties_per_channel"].values()
    plans["foreground_intensity_properties_per_channel"] = {str(number): usual for number in range(len(channels))}
    plans["transpose_forward"] = list(transpose)
    plans["transpose_backward"] = [transpose.index(axis) for axis in range(3)]
    described = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **{f"organ_{value}": value for value in range(1, labels)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if orientation:
        described["orientation"] = orientation
    return plans, described | dict(dataset or {})


OLD = {  # what nnU-Net 2.0 to 2.2 said of the tiny network
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "unet_max_num_features": 12,
    "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [1, 1],
    "num_pool_per_axis": [1, 2, 2],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
}


def old_plans(model: Path) -> dict[str, Any]:
    """The plans.json of a tiny model as nnU-Net 2.0 to 2.2 wrote it, TotalSegmentator's among others."""
    plans: dict[str, Any] = json.loads((model / "plans.json").read_text())
    tiny = plans["configurations"].pop("tiny")
    del tiny["architecture"]
    plans["configurations"]["base"] = tiny | {"spacing": [9.0, 9.0, 9.0]}
    plans["configurations"]["tiny"] = {"inherits_from": "base", "spacing": tiny["spacing"], **OLD}
    properties = plans.pop("foreground_intensity_properties_per_channel")
    return plans | {"foreground_intensity_properties_by_modality": properties}


def export_pair(weights: Path) -> None:
    """Make `weights` a weights folder of two exported networks: organ (values 1..4) and tumor (14)."""
    from inference.export.convert import export

    with tempfile.TemporaryDirectory() as name:
        organ, tumor = write_model(Path(name) / "tiny"), write_model(Path(name) / "tumor", labels=2, seed=1)
        export(organ, weights / "organ", trained_on="random weights")
        export(tumor, weights / "tumor", values={"organ_1": 14}, trained_on="random weights")
    for name in ("organ", "tumor"):  # as if made for abdomens: what tests of the command look at
        card = weights / name / "card.json"
        card.write_text(json.dumps(json.loads(card.read_text()) | {"way": "abdomen"}, indent=2) + "\n")


STRUCTURES = {1: "liver", 2: "right_kidney", 3: "lung_upper_lobe_left", 4: "aorta"}  # as cards spell them


def rename(network: Path, names: Mapping[int, str]) -> None:
    """Give labels of an exported network, by their values, other names."""
    card = json.loads((network / "card.json").read_text())
    for label in card["labels"]:
        label["name"] = names.get(label["value"], label["name"])
    (network / "card.json").write_text(json.dumps(card))


if __name__ == "__main__":
    committed = Path(__file__).resolve().parent.parent / "networks"
    shutil.rmtree(committed, ignore_errors=True)
    export_pair(committed)
