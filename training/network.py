"""A student's network, built from its row of plans.STUDENTS, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from training.plans import STUDENTS, unet_of
from training.unet import State, read_tensors


def build_student(outputs: int, student: str) -> PlainConvUNet:
    """PlainConvUNet of a student, a key of plans.STUDENTS: (b, 1, z, y, x) -> (b, outputs, z, y, x)."""
    row = STUDENTS[student]
    plan: dict[str, Any] = dict(unet_of(row)["arch_kwargs"])
    plan |= {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d if row.norms else None, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(input_channels=1, num_classes=outputs, deep_supervision=False, **plan)


def read_state(path: Path, student: str) -> State:
    """A student's state dict, float32, from its parameters in a file of PyTorch.

    The file may hold the parameters in any precision, each under one of its names. Raises ValueError, in one sentence,
    if they are not those of this student.
    """
    stored: State = read_tensors(path, torch.device("cpu"))
    network = build_student(count_outputs(stored), student)
    own = network.state_dict()
    # A parameter may be given under any of its names, as exported graphs do. Deep supervision's layers have no part in
    # the answer and are not exported.
    given = {id(network.get_parameter(name)) for name in stored if name in own}
    heads = [name for name in own if name.startswith("decoder.seg_layers.")]
    needed = {name for name, value in network.named_parameters() if id(value) not in given} - set(heads[:-2])
    if odd := sorted(stored.keys() - own.keys()) or sorted(needed):
        raise ValueError(f"{path} does not hold the student {student}: {odd[0]} is in only one of the two")
    if odd := sorted(name for name in stored if stored[name].shape != own[name].shape):
        sizes = " and ".join("x".join(map(str, state[odd[0]].shape)) for state in (stored, own))
        raise ValueError(f"{path} does not hold the student {student}: {odd[0]} has the shapes {sizes}")
    network.load_state_dict(stored, strict=False)
    return network.state_dict()


def count_outputs(state: State) -> int:
    """Output channels of the last segmentation layer, the one at full resolution. Raises ValueError if it has none."""
    biases = [key for key in state if key.startswith("decoder.seg_layers.") and key.endswith(".bias")]
    if not biases:
        raise ValueError("these are not the weights of a PlainConvUNet: decoder.seg_layers is missing")
    last = max(biases)
    return int(state[last].shape[0])
