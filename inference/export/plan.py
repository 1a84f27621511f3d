"""What plans.json of nnU-Net v2 says of a network, checked, beside dataset.json where both say it: all that inference
would do otherwise is refused.

Nothing is imported or called by a name in these files. Errors are ValueErrors with one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..grids.resize import ANISOTROPY
from ..scan import reorient
from .architecture import from_old_plan
from .plain import flag, mapping, need, number, one_of, several, shown, text, whole

READERS = {  # nnU-Net's reader -> orientation it turns scans to; None: as each file stores them
    "SimpleITKIO": None,
    "NibabelIO": None,
    "NibabelIOWithReorient": "RAS",
    "SimpleITKIOWithReorient": "RAS",
}
NORMALISE: dict[str | None, str] = {  # nnU-Net's scheme -> the card's
    "CTNormalization": "ct",
    "ZScoreNormalization": "zscore",
    "RescaleTo01Normalization": "rescale01",
    "RGBTo01Normalization": "rgb01",
    "NoNormalization": "none",
}
SPLINE = "resample_data_or_seg_to_shape"
# nnU-Net's function -> the card's method. With its others, such as resample_torch_simple, nnU-Net's own preprocessor
# fails: they take other arguments.
RESAMPLING: dict[str | None, str] = {
    SPLINE: "spline",
    "resample_torch_fornnunet": "torch",
    "no_resampling_hack": "none",
}
# What takes a scan to the network and back -> the version of nnU-Net whose steps it takes, as on a card.
PREPROCESSORS = {"DefaultPreprocessor": 2, "GenericPreprocessor": 1}
ALONG_COARSE: dict[str | None, int] = {"nearest-exact": 0, "linear": 1}  # aniso_axis_mode -> order of a spline
HIGHEST_ORDER = 3  # of splines
UNTOLD = {"order": 3, "order_z": 0, "force_separate_z": False}  # what nnU-Net's SPLINE does where a plan says nothing
THRESHOLD = "separate_z_anisotropy_threshold"  # of both functions; a plan may only say what is usual
LARGEST_PATCH = 400**3  # voxels; nnU-Net's planner stops at a fifth of it with 24 GB of GPU memory
HU = 1e5  # no clip, mean or deviation of a CT is beyond


def configuration_of(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One configuration of a plans.json with what it inherits; its `architecture` is that of today's plans."""
    every = mapping(need(plans, "configurations"), "configurations")
    merged: dict[str, Any] = {}
    seen = []
    following: Any = name
    while following is not None:
        if text(following, "inherits_from") not in every:
            raise ValueError(f"configuration {shown(following)} is missing, the plan has {shown(list(every))}")
        if following in seen:
            raise ValueError(f"configuration {shown(following)} inherits from itself")
        seen.append(following)
        fields = mapping(every[following], f"configuration {shown(following)}")
        merged = fields | merged
        following = fields.get("inherits_from")
    if "architecture" not in merged and "UNet_class_name" in merged:
        merged["architecture"] = from_old_plan(merged)
    return merged


def planar(configuration: Mapping[str, Any]) -> bool:
    """Whether a configuration is 2D: its network sees single planes across the first axis."""
    patch = configuration.get("patch_size")
    return isinstance(patch, list) and len(patch) == 2


def card_fields(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a card that follow from the plan.

    Raises ValueError, naming the first thing in the plan that inference would do otherwise.
    """
    flat = planar(configuration)
    patch = [1] * flat + several(need(configuration, "patch_size"), "patch_size", 3 - flat, whole, 1, 2048)
    if np.prod(patch) > LARGEST_PATCH:
        raise ValueError(f"patch_size is {patch}, more than {LARGEST_PATCH:,} voxels")
    _refuse_other_methods(plans, configuration)
    axes = several(need(plans, "transpose_forward"), "transpose_forward", 3, whole, 0, 2)
    if sorted(axes) != [0, 1, 2]:
        raise ValueError(f"transpose_forward is {axes}, which is not an order of three axes")
    back = [axes.index(axis) for axis in range(3)]
    if plans.get("transpose_backward", back) != back:
        raise ValueError(f"transpose_backward is {shown(plans['transpose_backward'])}, which does not undo {axes}")
    return {
        "axes": axes,
        "spacing": [None] * flat + several(need(configuration, "spacing"), "spacing", 3 - flat, number, 0.01, 100),
        "patch": patch,
        "resample": _resampling(configuration),
    }


def orientation_of(plans: Mapping[str, Any], dataset: Mapping[str, Any], given: str | None) -> str | None:
    """The orientation of the training scans: as given, else as dataset.json or the plan's reader says, else None."""
    orientation = given or dataset.get("orientation") or READERS[plans["image_reader_writer"]]
    if orientation is not None:  # `reorient` refuses what is none
        reorient(np.empty((1, 1, 1)), text(orientation, "orientation"), "LPS")
    return orientation


def channels_of(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], dataset: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The input channels, in order."""
    names = dataset.get("channel_names", dataset.get("modality"))  # nnU-Net 2.0 took the name of version 1
    if names is None:
        raise ValueError("channel_names is missing")
    count = len(mapping(names, "channel_names"))
    if not count:
        raise ValueError("channel_names is empty")
    schemes = several(need(configuration, "normalization_schemes"), "normalization_schemes", count, _scheme)
    masked = several(need(configuration, "use_mask_for_norm"), "use_mask_for_norm", count, _flag_or_none)
    channels = []
    # Their order counts in nnU-Net, whatever the keys are.
    for index, (name, scheme, mask) in enumerate(zip(names.values(), schemes, masked, strict=True)):
        channel: dict[str, Any] = {"name": str(name), "normalise": scheme}
        if scheme == "ct":
            channel |= _intensities(plans, index)
        if scheme == "zscore" and mask:  # the others ignore it
            channel["masked"] = True
        channels.append(channel)
    return channels


def previous_stage(configuration: Mapping[str, Any]) -> str | None:
    """The configuration whose label map is an input of this one, in a cascade."""
    name = configuration.get("previous_stage")
    if name is None:
        return None
    if not re.fullmatch(r"\w[\w.-]{0,80}", text(name, "previous_stage")):
        raise ValueError(f"previous_stage is {shown(name)}, which is not the name of a configuration")
    return str(name)


def after_of(configuration: Mapping[str, Any], network: str, values: Sequence[int]) -> dict[str, Any]:
    """The card's `after` for a network whose earlier one is called `network`, see `stacked_values`."""
    key = "resampling_fn_seg"
    method = one_of(need(configuration, key), key, RESAMPLING)
    given = mapping(need(configuration, f"{key}_kwargs"), f"{key}_kwargs")
    given = (UNTOLD if method == "spline" else {}) | given
    if given.get(THRESHOLD) == ANISOTROPY:
        del given[THRESHOLD]
    fields = {"network": network, "values": list(values), "order": 1}
    force = _flag_or_none(given.get("force_separate_z"), f"{key}_kwargs: force_separate_z")
    if method == "none":
        return fields | {"order": 0, "force_separate_z": False}
    if method == "torch":
        usual = {"is_seg": True, "memefficient_seg_resampling": False, "mode": "linear"}
        usual |= {"aniso_axis_mode": "nearest-exact", "force_separate_z": force, "num_threads": None}
        if other := [name for name, value in given.items() if usual.get(name, value) != value or name not in usual]:
            raise ValueError(f"{key}_kwargs: {other[0]} is {shown(given[other[0]])}, which is not supported")
        return fields | {"method": method, "force_separate_z": force}
    usual = {"is_seg": True, "order": given.get("order"), "order_z": 0, "force_separate_z": force}
    if given != usual or given["order"] not in (0, 1):
        raise ValueError(f"{key}_kwargs is {shown(given)}: only labels of order 0 or 1 with order_z 0 are supported")
    return fields | {"order": given["order"], "force_separate_z": force}


def mirror_axes(stored: Any, flat: bool) -> list[int] | None:
    """The axes of a window along which a checkpoint allows test-time mirroring; None where it allows none. A `flat`
    network's window is one plane."""
    if stored is None:
        return None
    axes = list(stored) if isinstance(stored, tuple) else stored
    if not isinstance(axes, list) or len(axes) > 3:
        raise ValueError(f"inference_allowed_mirroring_axes is {shown(stored)}")
    read = {whole(axis, "inference_allowed_mirroring_axes", 0, 2 - flat) for axis in axes}
    return sorted(axis + flat for axis in read) or None


def window_multiple(patch: list[int], strides: list[list[int]], normed: bool) -> list[int] | None:
    """What the sides of a window are multiples of; None for instance norms, with which every window is a patch."""
    multiple = [int(n) for n in np.prod(strides, axis=0)]
    if any(side % unit for side, unit in zip(patch, multiple, strict=True)):
        raise ValueError(f"patch_size {patch} is not a multiple of {multiple}, the product of the strides")
    return None if normed else multiple


def _refuse_other_methods(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
    """What nnU-Net would import by its name must be the one that inference does the same as."""
    preprocessor = text(need(configuration, "preprocessor_name"), "preprocessor_name")
    if preprocessor not in PREPROCESSORS:
        known = " or ".join(PREPROCESSORS)
        raise ValueError(f"preprocessor_name {shown(preprocessor)} is not {known}: labels would differ")
    reader = text(need(plans, "image_reader_writer"), "image_reader_writer")
    if reader not in READERS:
        raise ValueError(f"reader {shown(reader)} is not one of {', '.join(READERS)}")
    if plans.get("label_manager", "LabelManager") != "LabelManager":
        raise ValueError(f"label_manager {shown(plans['label_manager'])} is not LabelManager: labels would differ")


def _scheme(value: Any, name: str) -> str:
    return one_of(value, name, NORMALISE)


def _flag_or_none(value: Any, name: str) -> bool | None:
    return None if value is None else flag(value, name)


def _intensities(plans: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Clip, mean and standard deviation of CTNormalization for a channel."""
    key = "foreground_intensity_properties_per_channel"
    old = "foreground_intensity_properties_by_modality"  # until nnU-Net 2.1
    every = need(plans, old if key not in plans and old in plans else key)
    channel = mapping(mapping(every, key).get(str(index)), f"{key}: {index}")

    def read(name: str, low: float = -HU) -> float:
        return number(need(channel, name), name, low, HU)

    low, high = read("percentile_00_5"), read("percentile_99_5")
    if low >= high:
        raise ValueError(f"percentile_00_5 is {low} and percentile_99_5 is {high}: the first must be less")
    return {"clip": [low, high], "mean": read("mean"), "std": read("std", 1e-6)}


def _resampling(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The card's `resample`: methods, orders of the splines, and the rule for a coarse axis."""
    image, logits = (_resize(configuration, kind) for kind in ("data", "probabilities"))
    if logits["method"] == "none" != image["method"]:
        raise ValueError("resampling_fn_probabilities no_resampling_hack gives no labels on the grid of the scan")
    fields = {"image_order": image["order"], "logit_order": logits["order"]}
    fields["force_separate_z"] = image["force_separate_z"]
    for kind, found in (("image", image), ("logit", logits)):
        usual = {"order_z": 0, "method": "spline", "force_separate_z": image["force_separate_z"]}
        fields |= {f"{kind}_{name}": found[name] for name, value in usual.items() if found[name] != value}
    version = PREPROCESSORS[configuration["preprocessor_name"]]
    return fields if version == 2 else fields | {"version": version}


def _resize(configuration: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The fields of a card's Resize."""
    name, key = f"resampling_fn_{kind}", f"resampling_fn_{kind}_kwargs"
    method = one_of(need(configuration, name), name, RESAMPLING)
    given = mapping(need(configuration, key), key)

    def order(value: Any, name: str) -> int:
        return whole(value, name, 0, HIGHEST_ORDER)

    def ignored(value: Any, name: str) -> None:
        """How quick nnU-Net is and how much memory it takes, and not what comes of it."""

    readers: dict[str, Callable[[Any, str], Any]] = {"is_seg": _off}
    if method == "none":
        return {"method": method, "order": 0, "order_z": 0, "force_separate_z": False}
    readers["force_separate_z"] = _flag_or_none
    readers[THRESHOLD] = lambda value, name: number(value, name, ANISOTROPY, ANISOTROPY)
    usual: dict[str, Any] = UNTOLD
    if method == "spline":
        readers |= {"order": order, "order_z": order}
    else:
        usual = {"force_separate_z": None, "aniso_axis_mode": "nearest-exact"}
        readers |= {
            "num_threads": ignored,
            "memefficient_seg_resampling": ignored,
            "mode": lambda value, name: one_of(value, name, {"linear": 1}),
            "aniso_axis_mode": lambda value, name: one_of(value, name, ALONG_COARSE),
        }
    if unknown := sorted(given.keys() - readers.keys()):
        raise ValueError(f"{key} has {shown(unknown[0])}, which inference does not know")
    given = usual | given
    read = {name: readers[name](value, f"{key}: {name}") for name, value in given.items()}
    return {
        "method": method,
        "order": read.get("order", 1),
        "order_z": read.get("order_z", read.get("aniso_axis_mode")),
        "force_separate_z": read["force_separate_z"],
    }


def _off(value: Any, name: str) -> bool:
    if flag(value, name):
        raise ValueError(f"{name} is true: images and logits are not label maps")
    return False
