"""The student's network, built from its plan, and its state dict with one output more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from onnx import numpy_helper
from torch import nn

from training.plans import STUDENT_UNET

State = dict[str, torch.Tensor]


def build_student(outputs: int, deep_supervision: bool = False) -> PlainConvUNet:
    """PlainConvUNet of the paper's student: (b, 1, z, y, x) -> (b, outputs, z, y, x)."""
    plan: dict[str, Any] = dict(STUDENT_UNET["arch_kwargs"])
    plan |= {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(input_channels=1, num_classes=outputs, deep_supervision=deep_supervision, **plan)


def read_state(path: Path) -> State:
    """The student's state dict from a file of PyTorch, or from a folder of exported weights with its model.onnx."""
    if path.is_file():
        state: State = torch.load(path, map_location="cpu", weights_only=True)
        return state
    stored = {
        weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy())
        for weight in onnx.load(path / "model.onnx").graph.initializer
    }
    network = build_student(count_outputs(stored))
    unknown = network.load_state_dict(stored, strict=False).unexpected_keys  # what is missing are other names of these
    if unknown:
        raise ValueError(f"{path} does not hold the student's network: {unknown[0]} is not in it")
    return network.state_dict()


def count_outputs(state: State) -> int:
    """Output channels of the last segmentation layer, the one at full resolution."""
    last = max(key for key in state if key.startswith("decoder.seg_layers.") and key.endswith(".bias"))
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
