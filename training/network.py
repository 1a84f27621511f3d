"""A student's network, built from its row of plans.STUDENTS, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from onnx import numpy_helper
from torch import nn

from inference.card import FORMS
from training.plans import STUDENTS, unet_of

State = dict[str, torch.Tensor]


def build_student(outputs: int, student: str = "student") -> PlainConvUNet:
    """PlainConvUNet of a student, a key of plans.STUDENTS: (b, 1, z, y, x) -> (b, outputs, z, y, x)."""
    row = STUDENTS[student]
    plan: dict[str, Any] = dict(unet_of(row)["arch_kwargs"])
    plan |= {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d if row.norms else None, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(input_channels=1, num_classes=outputs, deep_supervision=False, **plan)


def read_state(path: Path, student: str = "student") -> State:
    """A student's state dict, float32, from its parameters in a file of PyTorch or from a folder of exported weights.

    The file may hold the parameters in any precision, each under one of its names. Raises ValueError if they are not
    those of this student.
    """
    if path.is_file():
        stored: State = torch.load(path, map_location="cpu", weights_only=True)
    else:
        graph = onnx.load(path / FORMS["f32"][0]).graph
        stored = {weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy()) for weight in graph.initializer}
    network = build_student(count_outputs(stored), student)
    try:
        found = network.load_state_dict(stored, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the student {student}: {error}") from error
    absent = {name for name, _ in network.named_parameters()} - stored.keys()
    if odd := sorted(found.unexpected_keys) or sorted(absent):
        raise ValueError(f"{path} does not hold the student {student}: {odd[0]} is in only one of the two")
    return network.state_dict()


def count_outputs(state: State) -> int:
    """Output channels of the last segmentation layer, the one at full resolution. Raises ValueError if it has none."""
    biases = [key for key in state if key.startswith("decoder.seg_layers.") and key.endswith(".bias")]
    if not biases:
        raise ValueError("these are not the weights of a PlainConvUNet: decoder.seg_layers is missing")
    last = max(biases)
    return int(state[last].shape[0])


def with_outputs(state: State, outputs: int) -> State:
    """`state` with its segmentation layers grown to `outputs` channels.

    A new channel starts as the background's, one logit below: it then wins nowhere until it has learned.
    """
    grown = dict(state)
    for key, value in state.items():
        missing = outputs - value.shape[0]
        if key.startswith("decoder.seg_layers.") and missing > 0:
            new = value[:1].repeat(missing, *[1] * (value.dim() - 1))
            grown[key] = torch.cat([value, new - 1.0 if key.endswith(".bias") else new])
    return grown
