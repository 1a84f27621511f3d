"""The student's network, built from its plan; its state dict with one output more, and without its norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from onnx import numpy_helper
from torch import nn

from training.plans import PLAIN_STUDENT_UNET, STUDENT_UNET

State = dict[str, torch.Tensor]


def build_student(outputs: int, norms: bool = True) -> PlainConvUNet:
    """PlainConvUNet of the paper's student, or without its norms: (b, 1, z, y, x) -> (b, outputs, z, y, x)."""
    plan: dict[str, Any] = dict((STUDENT_UNET if norms else PLAIN_STUDENT_UNET)["arch_kwargs"])
    plan |= {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d if norms else None, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(input_channels=1, num_classes=outputs, deep_supervision=False, **plan)


def read_state(path: Path) -> State:
    """The student's state dict from a file of PyTorch, or from a folder of exported weights with its model.onnx."""
    if path.is_file():
        state: State = torch.load(path, map_location="cpu", weights_only=True)
        return state
    stored = {
        weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy())
        for weight in onnx.load(path / "model.onnx").graph.initializer
    }
    network = build_student(count_outputs(stored), has_norms(stored))
    unknown = network.load_state_dict(stored, strict=False).unexpected_keys  # what is missing are other names of these
    if unknown:
        raise ValueError(f"{path} does not hold the student's network: {unknown[0]} is not in it")
    return network.state_dict()


def count_outputs(state: State) -> int:
    """Output channels of the last segmentation layer, the one at full resolution."""
    last = max(key for key in state if key.startswith("decoder.seg_layers.") and key.endswith(".bias"))
    return int(state[last].shape[0])


def has_norms(state: State) -> bool:
    """Whether a state dict is that of a student with its instance norms."""
    return any(".all_modules.1." in key for key in state)  # all_modules: convolution, norm, nonlinearity


def fold_norms(state: State, images: Sequence[torch.Tensor]) -> State:
    """The student without instance norms that answers most like `state` does on `images` (1, 1, z, y, x).

    Each norm becomes the constant scale and shift that it has over all images together, inside the convolution
    before it. From the first norm to the last, so that each sees what the constants before it make of the images. An
    answer then depends on what surrounds a voxel and no more on what else is in the window: windows may be of any
    size. It needs some training afterwards.
    """
    outputs = count_outputs(state)
    normed, plain = build_student(outputs).eval(), build_student(outputs, norms=False).eval()
    normed.load_state_dict(state)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append((inputs[0].mean((0, 2, 3, 4)), inputs[0].square().mean((0, 2, 3, 4))))

    with torch.no_grad():
        for block in (module for module in normed.modules() if isinstance(module, ConvDropoutNormReLU)):
            seen.clear()
            hook = block.norm.register_forward_pre_hook(note)
            for image in images:
                normed(image)
            hook.remove()
            mean = torch.stack([one for one, _ in seen]).mean(0)
            square = torch.stack([two for _, two in seen]).mean(0)
            scale = block.norm.weight / torch.sqrt(square - mean.square() + block.norm.eps)
            block.conv.weight.mul_(scale[:, None, None, None, None])
            block.conv.bias.sub_(mean).mul_(scale).add_(block.norm.bias)
            block.all_modules[1] = nn.Identity()
    plain.load_state_dict({key: value for key, value in normed.state_dict().items() if ".norm." not in key})
    return plain.state_dict()


def lowered(state: State, by: Mapping[int, float]) -> State:
    """`state` with the logits of some channels lowered by constants, in the bias of the last layer.

    Where training shows a class more often, or weighs it more, than it is met in patients, its logit is too high by
    the logarithm of that ratio (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021).
    """
    last = max(key for key in state if key.startswith("decoder.seg_layers.") and key.endswith(".bias"))
    bias = state[last].clone()
    for channel, logits in by.items():
        bias[channel] -= logits
    return state | {last: bias}


def averaged(states: Sequence[State]) -> State:
    """The mean of the weights of one network's state dicts, such as those before and after more training.

    It often keeps what both know (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    """
    return {key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]}


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
