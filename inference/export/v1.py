"""A result folder of nnU-Net v1, as if nnU-Net v2 had planned it.

nnU-Net v1 reads the plans beside a checkpoint, in its .model.pkl, and so does this. They are turned into what a
plans.json and a dataset.json say, so that all checks of the exporter hold for them too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ..errors import WeightsError
from . import generic_unet
from .checkpoint import Checkpoint, fold_folders, read_torch, refuse_missing, tensors_of
from .plain import mapping, need, read_json, shown, text, whole
from .v1_pickles import read_pickle
from .write import DATASET, PLANS
from .write import FINAL as FINAL_OF_V2

FINAL = "model_final_checkpoint.model"
PREPROCESSOR, PREPROCESSOR_2D = "GenericPreprocessor", "PreprocessorFor2D"  # the steps are the same
RESAMPLING = "resample_data_or_seg_to_shape"  # of nnU-Net v2: the same splines
# How channels are normalised, in the words of version 2 for the same.
SCHEMES = {"CT": "CTNormalization", "nonCT": "ZScoreNormalization", "noNorm": "NoNormalization"}
OURS = ("orientation", "one_piece", "hosts", "way", "numTraining")  # what else a dataset.json may say of it
CASCADE = "CascadeFullRes"  # in the names of trainers whose networks see the labels of stage 0 as well
MOST_CLASSES = 1000
MOST_CHANNELS = 100
MOST_FEATURES, MOST_FEATURES_2D = 320, 480  # Generic_UNet.MAX_NUM_FILTERS_3D, MAX_FILTERS_2D
# Trainers of nnU-Net v1 whose networks have the parameters of the usual one, but compute something else with them.
OTHERS = re.compile(r"ReLU|GeLU|Mish|_GN|Regions|Cascade(?!FullRes)", re.IGNORECASE)
MIRRORS = (0, 1, 2)  # axes of a window that its trainers mirror it along, and its predictor unless it is told not to
UNMIRRORED = re.compile(r"no(Mirror|DA|DataAug)", re.IGNORECASE)  # names of trainers that do not
# nnU-Net v1's trainers have no argument for the stage of a configuration but its place among others; distributed ones
# have one more before it, where the others have a flag.
STAGE = (5, 6)
STAGE_NAME = "stage_{}"  # what the configuration of a stage is called here


def is_v1(folder: Path) -> bool:
    """Whether this is a result folder of nnU-Net v1: folds with its checkpoints, and none of nnU-Net v2's plans."""
    places = ("fold_*", "all")
    return not (folder / PLANS).exists() and any(any(folder.glob(f"{place}/*.model")) for place in places)


def read_result_folder(folder: Path, fold: str | None = None, name: str = FINAL) -> list[Checkpoint]:
    """The folds of a result folder that `fold` asks for, as of nnU-Net v2's. `name` is the checkpoint's.

    Raises WeightsError if a file is missing or damaged, holds more than tensors and plain values, or is of a network
    that is not nnU-Net v1's usual one.
    """
    name = FINAL if name == FINAL_OF_V2 else name
    every = folder / "all"  # as version 1 calls what version 2 calls fold_all
    alone = every.is_dir() and (fold == "all" or not any(folder.glob("fold_*")))
    places = [every] if alone else fold_folders(folder, fold, name)
    return [_read_fold(folder, place / name) for place in places]


def _read_fold(folder: Path, file: Path) -> Checkpoint:
    refuse_missing(file, "*.model")
    pickled = file.with_name(f"{file.name}.pkl")
    told, stored = read_pickle(pickled), read_torch(file)
    try:
        told = mapping(told, "what it holds")
        trainer = text(need(told, "name"), "name")
        if other := OTHERS.search(trainer):
            raise ValueError(f"trainer {trainer} is not supported: {_why(other[0])}")
        plans = mapping(need(told, "plans"), "plans")
        stage = _stage(need(told, "init"), plans)
        flat = _planar(plans["plans_per_stage"][stage])
        given = read_json(folder / DATASET) if (folder / DATASET).exists() else {}
        configuration = STAGE_NAME.format(stage)
        converted = _plans(plans, stage, configuration, CASCADE in trainer), _dataset(plans, given)
    except ValueError as error:
        raise WeightsError(f"{pickled}: {error}") from error
    try:
        state = tensors_of(need(mapping(stored, "what it holds"), "state_dict"))
    except ValueError as error:
        raise WeightsError(f"{file} is not a checkpoint of nnU-Net v1: {error}") from error
    mirrors = None if UNMIRRORED.search(trainer) else MIRRORS[: 2 if flat else 3]  # which no file says
    return Checkpoint(file, *converted, configuration, trainer, mirrors, state)


def _why(word: str) -> str:
    return "its labels are regions" if word.lower() == "regions" else "its network has other layers"


def _stage(init: Any, plans: Mapping[str, Any]) -> int:
    """The stage that was trained, out of the arguments of the trainer; None is the only one."""
    stages: dict[Any, Any] = mapping(need(plans, "plans_per_stage"), "plans_per_stage")
    arguments = _list(init, "init")
    place = STAGE[1] if len(arguments) > STAGE[0] and isinstance(arguments[STAGE[0]], bool) else STAGE[0]
    stage = arguments[place] if len(arguments) > place else None
    if stage is None and len(stages) == 1:
        stage = next(iter(stages))
    if not isinstance(stage, int) or stage not in stages:
        raise ValueError(f"stage {shown(stage)} is not one of {shown(list(stages))}")
    return stage


def _plans(plans: Mapping[str, Any], stage: int, configuration: str, cascade: bool) -> dict[str, Any]:
    """What a plans.json would say of one stage. `cascade`: its network comes after that of the first."""
    planned = mapping(plans["plans_per_stage"][stage], f"stage {stage}")
    spacing = _list(need(planned, "current_spacing"), "current_spacing")
    preprocessor = PREPROCESSOR_2D if _planar(planned) else PREPROCESSOR
    given = text(plans.get("preprocessor_name") or preprocessor, "preprocessor_name")
    if given != preprocessor:
        raise ValueError(f"preprocessor_name {shown(given)} is not {preprocessor}: labels would differ")
    forward, backward = (plans.get(f"transpose_{way}") for way in ("forward", "backward"))
    if forward is None or backward is None:  # of the first plans
        forward = backward = [0, 1, 2]
    export = mapping(plans.get("segmentation_export_params", {}), "segmentation_export_params")
    usual = {"force_separate_z": None, "interpolation_order": 1, "interpolation_order_z": 0}
    if export and export != usual:
        raise ValueError(f"segmentation_export_params is {shown(export)}, only {usual} is supported")
    linear = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": PurePath(text(plans.get("preprocessed_data_folder", ""), "preprocessed_data_folder")).name,
        "plans_name": plans.get("data_identifier", "not stated"),
        "transpose_forward": _list(forward, "transpose_forward"),
        "transpose_backward": _list(backward, "transpose_backward"),
        "image_reader_writer": "SimpleITKIO",
        "foreground_intensity_properties_per_channel": _intensities(plans),
        "configurations": {
            configuration: {
                "preprocessor_name": PREPROCESSOR,
                "patch_size": _list(need(planned, "patch_size"), "patch_size"),
                "spacing": spacing[1:] if _planar(planned) else spacing,  # planes are seen as far apart as they are
                "normalization_schemes": _schemes(plans),
                "use_mask_for_norm": _by_channel(plans, "use_mask_for_norm"),
                "resampling_fn_data": RESAMPLING,
                "resampling_fn_data_kwargs": linear | {"order": 3},
                "previous_stage": STAGE_NAME.format(0) if cascade else None,
                "resampling_fn_seg": RESAMPLING,
                "resampling_fn_seg_kwargs": linear | {"is_seg": True, "force_separate_z": False},
                "resampling_fn_probabilities": RESAMPLING,
                "resampling_fn_probabilities_kwargs": linear,
                "architecture": _architecture(plans, planned),
            }
        },
    }


def _intensities(plans: Mapping[str, Any]) -> dict[str, Any]:
    """foreground_intensity_properties_per_channel, of the channels that have them."""
    every = need(mapping(need(plans, "dataset_properties"), "dataset_properties"), "intensityproperties")
    told: dict[Any, Any] = mapping({} if every is None else every, "intensityproperties")
    intensities = {}
    for channel in range(_channels(plans)):
        if channel in told:
            own = mapping(told[channel], f"intensityproperties: {channel}")
            same = {name: need(own, name) for name in ("mean", "percentile_00_5", "percentile_99_5")}
            intensities[str(channel)] = same | {"std": need(own, "sd")}
    return intensities


def _planar(planned: Any) -> bool:
    return len(_list(need(mapping(planned, "the stage"), "patch_size"), "patch_size")) == 2


def _channels(plans: Mapping[str, Any]) -> int:
    return whole(need(plans, "num_modalities"), "num_modalities", 1, MOST_CHANNELS)


def _by_channel(plans: Mapping[str, Any], key: str) -> list[Any]:
    """A table by number of channel as a list."""
    told: dict[Any, Any] = mapping(need(plans, key), key)
    channels = _channels(plans)
    if set(told) != set(range(channels)):
        raise ValueError(f"{key} is {shown(told)}, not one value for each of {channels} channels")
    return [told[channel] for channel in range(channels)]


def _schemes(plans: Mapping[str, Any]) -> list[str]:
    """How the channels are normalised, in nnU-Net v2's words where these mean the same."""
    schemes = _by_channel(plans, "normalization_schemes")
    masks = _by_channel(plans, "use_mask_for_norm")
    for scheme, mask in zip(schemes, masks, strict=True):
        if not isinstance(scheme, str) or scheme not in SCHEMES or (mask and scheme == "CT"):
            what = f"{shown(scheme)} within the mask of what is not 0" if mask else shown(scheme)
            raise ValueError(f"normalization_schemes has {what}, of nnU-Net v1 {', '.join(SCHEMES)} are supported")
    return [SCHEMES[scheme] for scheme in schemes]


def _architecture(plans: Mapping[str, Any], planned: Mapping[str, Any]) -> dict[str, Any]:
    """The network of a stage, in nnU-Net v2's form."""
    pools, kernels = (
        [_list(one, key) for one in _list(need(planned, key), key)]
        for key in ("pool_op_kernel_sizes", "conv_kernel_sizes")
    )
    if odd := [kernel for kernel in kernels if any(side not in (1, 3) for side in kernel)]:
        raise ValueError(f"conv_kernel_sizes has {shown(odd[0])}: nnU-Net v1 keeps the size of an image with 1 and 3")
    stages = whole(len(pools) + 1, "the number of pool_op_kernel_sizes", 2, 12)
    flat = _planar(planned)
    most = MOST_FEATURES_2D if flat else MOST_FEATURES
    base = whole(need(plans, "base_num_features"), "base_num_features", 1, most)
    return {
        "network_class_name": generic_unet.NAME,
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "kernel_sizes": kernels,
            "strides": [[1] * (2 if flat else 3), *pools],
            "convs_per_stage": plans.get("conv_per_stage", 2),
        },
    }


def _dataset(plans: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataset.json would say. Labels have the names of one that is there, `given`, else label_1, label_2, ..."""
    count = whole(need(plans, "num_classes"), "num_classes", 1, MOST_CLASSES)
    names = {str(value): f"label_{value}" for value in range(1, count + 1)}
    if "labels" in given:
        told = {str(value): name for value, name in mapping(given["labels"], "labels of dataset.json").items()}
        if told.keys() - {"0"} != names.keys():
            raise ValueError(f"dataset.json has the labels {shown(list(told))}, the plans {count} beside background")
        names = {value: text(told[value], f"label {value} of dataset.json") for value in names}
    labels = {"background": 0, **{name: int(value) for value, name in names.items()}}
    if len(labels) != count + 1:
        raise ValueError(f"dataset.json gives one name to several labels: {shown(list(names.values()))}")
    names_of_channels = _by_channel(plans, "modalities")
    channels = {str(number): text(name, "modalities") for number, name in enumerate(names_of_channels)}
    kept = {name: value for name, value in given.items() if name in OURS}
    return {"channel_names": channels, "labels": labels, "numTraining": 0, "file_ending": ".nii.gz", **kept}


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, tuple | list):
        raise ValueError(f"{name} is {shown(value)}, not a list")
    return list(value)
