"""What a plan of nnU-Net says of its network -> the module.

nnU-Net imports and calls whatever a plan names. Here a name is only looked up in the tables below, and arguments are
plain values within bounds that no network for a CT reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from torch import nn

from .generic_unet import NAME, GenericUNet
from .plain import flag, mapping, need, number, one_of, several, shown, text, whole

_UNETS = "dynamic_network_architectures.architectures"
NETWORKS: dict[str | None, type[nn.Module]] = {
    f"{_UNETS}.unet.PlainConvUNet": PlainConvUNet,
    f"{_UNETS}.unet.ResidualEncoderUNet": ResidualEncoderUNet,
    f"{_UNETS}.residual_unet.ResidualEncoderUNet": ResidualEncoderUNet,  # where nnU-Net 2.0 to 2.2 knew it
    NAME: GenericUNet,
}
DEEPEST = 12  # stages; nnU-Net's planner stops at 8, and twelve halvings need a patch of 2048 voxels
MOST_FEATURES = 2048  # nnU-Net's largest preset has 512
MOST_BLOCKS = 32  # of a stage; nnU-Net's largest preset has 10
WIDEST_KERNEL = 15
LARGEST_STRIDE = 8
MOST_PARAMETERS = 500_000_000  # of one network; a ResEncUNet L of nnU-Net has 100 million
STATISTICS = "running_mean"  # how the names of what batch norms have learnt of their inputs end
TRACKED = "track_running_stats"  # whether a norm has them
COUNTED = "num_batches_tracked"  # the one whole number in a state dict, which inference does not use
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Reader = Callable[[Any, str], Any]


def _spellings(*classes: type[nn.Module]) -> dict[str | None, type[nn.Module]]:
    places = ("torch.nn", "torch.nn.modules")
    return {f"{place}.{kind.__name__}": kind for kind in classes for place in (*places, kind.__module__)}


CLASSES: dict[str, dict[str | None, type[nn.Module] | None]] = {
    "conv_op": {**_spellings(nn.Conv3d)},
    "norm_op": {None: None, **_spellings(nn.InstanceNorm3d, nn.BatchNorm3d)},
    "dropout_op": {None: None, **_spellings(nn.Dropout3d, nn.Dropout)},
    "nonlin": {**_spellings(nn.LeakyReLU, nn.ReLU)},
    "block": {f"{kind.__module__}.{kind.__name__}": kind for kind in (BasicBlockD, BottleneckD)},
}
# Of a 2D network: it becomes one of planes in 3D, whose kernels and strides have one voxel along the first axis.
PLANAR_CLASSES = {
    kind: {name and name.replace("3d", "2d"): module for name, module in classes.items()}
    for kind, classes in CLASSES.items()
}


def network_of(
    architecture: Any, outputs: int, inputs: int = 1, names: Collection[str] = (), planar: bool = False
) -> nn.Module:
    """The network that `architecture` of a plan describes, for so many output and input channels.

    names  in the state dict; where they have statistics of a training, norms are batch norms, as those of
           nnUNetTrainerBN, whatever the plan says
    planar the plan is of a 2D network

    It is on PyTorch's device "meta", where parameters take no memory, until a state dict is assigned to it.
    Raises ValueError, naming the first thing that is not on the lists or out of bounds.
    """
    fields = mapping(architecture, "architecture")
    name = text(need(fields, "network_class_name"), "network_class_name")
    if name not in NETWORKS:
        known = ", ".join(sorted({kind.__name__ for kind in NETWORKS.values()}))
        raise ValueError(f"architecture {shown(name)} is not one of {known}")
    network_class = NETWORKS[name]
    arguments = _arguments(mapping(need(fields, "arch_kwargs"), "arch_kwargs"), network_class, planar)
    if network_class is not GenericUNet:
        arguments |= _norms(arguments, any(name.endswith(STATISTICS) for name in names))
    try:
        with torch.device("meta"):
            network = network_class(input_channels=inputs, num_classes=outputs, **arguments)
    except TypeError as error:  # such as a ReLU with a negative_slope
        raise ValueError(f"arch_kwargs do not fit each other: {error}") from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"the network has {parameters:,} parameters, more than {MOST_PARAMETERS:,}")
    return network


def _norms(arguments: Mapping[str, Any], learnt: bool) -> dict[str, Any]:
    """`norm_op` and its arguments where nnU-Net's norm does what another is for.

    learnt  the state dict has statistics of a training
    """
    norm, options = arguments.get("norm_op"), arguments.get("norm_op_kwargs", {})
    of_window = norm is nn.BatchNorm3d and options.get(TRACKED) is False  # nnU-Net has one window in a batch
    if learnt and (norm is not nn.BatchNorm3d or of_window):
        if norm is nn.InstanceNorm3d and options.get(TRACKED):  # with its own
            return {"norm_op": nn.BatchNorm3d, "norm_op_kwargs": {"affine": False} | options}
        # It is nnUNetTrainerBN's, whatever the plan says.
        return {"norm_op": nn.BatchNorm3d, "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
    if of_window:
        return {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True} | options}
    return {}


def strides_of(network: Any) -> list[list[int]]:
    """The strides (z, y, x) of each stage of a network of `network_of`."""
    strides = network.strides if isinstance(network, GenericUNet) else network.encoder.strides
    return [list(stride) for stride in strides]


def assign(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Give a network of `network_of` its parameters, as float32, for inference. Copies only what is not float32.

    Raises ValueError, naming the first parameter that is missing, of another shape or not made of finite numbers.
    """
    own = network.state_dict()
    state = {  # kernels of a 2D network
        name: tensor.unsqueeze(2) if tensor.dim() == 4 and name in own and own[name].dim() == 5 else tensor
        for name, tensor in state.items()
    }
    misfit = "does not fit the architecture in its plan"
    if odd := sorted(own.keys() ^ state.keys()):
        raise ValueError(f"it {misfit}: {shown(odd[0])} is only in {'the plan' if odd[0] in own else 'the checkpoint'}")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"it {misfit}: {name} has shape {[*tensor.shape]}, in the plan {[*own[name].shape]}")
        if tensor.dtype not in FLOATS and not name.endswith(COUNTED):
            raise ValueError(f"{name} is of type {tensor.dtype}")
    numbers = {name: tensor if name.endswith(COUNTED) else tensor.float() for name, tensor in state.items()}
    for name, tensor in numbers.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds infinite numbers or NaN")
    network.load_state_dict(numbers, assign=True)
    network.eval()


def from_old_plan(fields: dict[str, Any]) -> dict[str, Any]:
    """The `architecture` of a configuration that nnU-Net 2.0 to 2.2 planned, as nnU-Net converts it today."""
    name = text(need(fields, "UNet_class_name"), "UNet_class_name")
    blocks = "n_blocks_per_stage" if name == "ResidualEncoderUNet" else "n_conv_per_stage"
    encoder = need(fields, "n_conv_per_stage_encoder")
    stages = len(encoder) if isinstance(encoder, list) else 0
    whole(stages, "the length of n_conv_per_stage_encoder", 2, DEEPEST)
    dimension = len(fields.get("patch_size", ()))
    base, most = (
        whole(need(fields, key), key, 1, MOST_FEATURES) for key in ("UNet_base_num_features", "unet_max_num_features")
    )
    return {
        "network_class_name": f"{_UNETS}.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "conv_op": f"torch.nn.Conv{dimension}d",
            "kernel_sizes": need(fields, "conv_kernel_sizes"),
            "strides": need(fields, "pool_op_kernel_sizes"),
            blocks: encoder,
            "n_conv_per_stage_decoder": need(fields, "n_conv_per_stage_decoder"),
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    }


def _arguments(given: dict[str, Any], network_class: type[nn.Module], planar: bool) -> dict[str, Any]:
    """`given` after every value was found plain and within bounds, with classes in place of their names."""
    required, optional = _readers(whole(need(given, "n_stages"), "n_stages", 2, DEEPEST), network_class, planar)
    readers = required | optional
    if unknown := sorted(given.keys() - readers.keys()):
        raise ValueError(f"arch_kwargs has {shown(unknown[0])}, which is not an argument of {network_class.__name__}")
    for name in required:
        need(given, name)
    arguments = {name: readers[name](value, name) for name, value in given.items()}
    if arguments["strides"][0] != [1, 1, 1]:
        raise ValueError(f"strides begin with {arguments['strides'][0]}: the labels would be coarser than the image")
    if network_class is GenericUNet:
        del arguments["n_stages"]
        return arguments
    if arguments.get("block") is BottleneckD and None in arguments.get("bottleneck_channels", [None]):
        raise ValueError("bottleneck_channels are missing, which BottleneckD needs")
    return {"dropout_op_kwargs": {}} | arguments | {"deep_supervision": False}


def _readers(stages: int, network_class: type[nn.Module], planar: bool) -> tuple[dict[str, Reader], dict[str, Reader]]:
    """What reads each argument of a network of so many stages: those that it must be given, and those that it may."""
    classes = PLANAR_CLASSES if planar else CLASSES

    def _class(value: Any, name: str) -> Any:
        return one_of(value, name, classes[name])

    def _per_axis(value: Any, name: str, read: Reader) -> list[int]:
        count = 2 if planar else 3
        return [1] * planar + several(value if isinstance(value, list) else [value] * count, name, count, read)

    required: dict[str, Reader] = {
        "n_stages": lambda value, name: value,
        "features_per_stage": _per_stage(stages, whole, 1, MOST_FEATURES),
        "conv_op": _class,
        "kernel_sizes": _per_stage(stages, _per_axis, _odd),
        "strides": _per_stage(stages, _per_axis, _stride),
        "n_conv_per_stage_decoder": _per_stage(stages - 1, whole, 1, MOST_BLOCKS),
        "nonlin": _class,
    }
    optional: dict[str, Reader] = {
        "conv_bias": flag,
        "norm_op": _class,
        "norm_op_kwargs": _options(eps=_tiny, affine=flag, momentum=_share, track_running_stats=flag),
        "dropout_op": _class,
        "dropout_op_kwargs": _options(p=_share, inplace=flag),
        "nonlin_kwargs": _options(negative_slope=_share, inplace=flag),
        "deep_supervision": flag,  # nnU-Net sets it as it needs it, and so does this
    }
    if network_class is GenericUNet:  # nnU-Net v1 has no choice in the rest
        required = {name: required[name] for name in ("n_stages", "features_per_stage", "kernel_sizes", "strides")}
        required["convs_per_stage"], optional = lambda value, name: whole(value, name, 2, MOST_BLOCKS), {}
    elif network_class is PlainConvUNet:
        required["n_conv_per_stage"] = _per_stage(stages, whole, 1, MOST_BLOCKS)
        optional["nonlin_first"] = flag
    else:
        required["n_blocks_per_stage"] = _per_stage(stages, whole, 1, MOST_BLOCKS)
        optional["stem_channels"] = _count_or_none
        optional |= {"block": _class, "bottleneck_channels": _per_stage(stages, _count_or_none)}
    return required, optional


def _per_stage(count: int, read: Callable[..., Any], *bounds: Any) -> Reader:
    """Reads one value for each of `count` stages; a single one is for all of them, as the networks take it."""

    def reader(value: Any, name: str) -> list[Any]:
        return several(value if isinstance(value, list) else [value] * count, name, count, read, *bounds)

    return reader


def _count_or_none(value: Any, name: str) -> int | None:
    return None if value is None else whole(value, name, 1, MOST_FEATURES)


def _odd(value: Any, name: str) -> int:
    if whole(value, name, 1, WIDEST_KERNEL) % 2 == 0:
        raise ValueError(f"{name} has {value}: an even kernel does not keep the size of its input")
    return int(value)


def _stride(value: Any, name: str) -> int:
    return whole(value, name, 1, LARGEST_STRIDE)


def _options(**readers: Reader) -> Reader:
    """Reads keyword arguments, of which none is required."""

    def reader(value: Any, name: str) -> dict[str, Any]:
        if value is None:
            return {}
        if unknown := sorted(mapping(value, name).keys() - readers.keys()):
            raise ValueError(f"{name} has {shown(unknown[0])}, which is not one of {', '.join(readers)}")
        return {key: readers[key](item, f"{name}: {key}") for key, item in value.items()}

    return reader


def _tiny(value: Any, name: str) -> float:
    return number(value, name, 1e-12, 0.1)


def _share(value: Any, name: str) -> float:
    return number(value, name, 0, 1)
