"""The network as training.train trains it: PlainConvUNet with batch norms, in PyTorch alone.

Its parameters are named as PlainConvUNet names them, so that `folded` gives a file that training.export reads.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.plans import Student, Three

State = dict[str, Tensor]

DEEP = 3  # outputs that deep supervision looks at, the finest first
EPS = 1e-5
FILTER = 0.12  # root mean square of a filter's weights, as all had before a norm after a run of AdamW
MOMENTUM = 0.01  # of the running statistics: a batch is two patches at most


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: Three = (1, 1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, stride, 1)
        self.norm = nn.BatchNorm3d(outputs, eps=EPS, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.01, inplace=True)


class _Stack(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: Three = (1, 1, 1)) -> None:
        super().__init__()
        self.convs = nn.Sequential(_Block(inputs, outputs, stride), _Block(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class _Encoder(nn.Module):
    def __init__(self, features: tuple[int, ...], strides: tuple[Three, ...]) -> None:
        super().__init__()
        steps = zip(pairwise((1, *features)), strides, strict=True)
        self.stages = nn.ModuleList(nn.Sequential(_Stack(few, many, stride)) for (few, many), stride in steps)

    def forward(self, x: Tensor) -> list[Tensor]:
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class _Decoder(nn.Module):
    def __init__(self, features: tuple[int, ...], strides: tuple[Three, ...], outputs: int) -> None:
        super().__init__()
        steps = [(*pair, stride) for pair, stride in zip(pairwise(features), strides[1:], strict=True)][::-1]
        self.transpconvs = nn.ModuleList(nn.ConvTranspose3d(many, few, stride, stride) for few, many, stride in steps)
        self.stages = nn.ModuleList(_Stack(2 * few, few) for few, _, _ in steps)
        self.seg_layers = nn.ModuleList(nn.Conv3d(few, outputs, 1) for few, _, _ in steps)

    def heads(self, deep: int) -> list[nn.Conv3d]:
        """The last layers of the `deep` finest levels, the finest last."""
        return [head for head in self.seg_layers if isinstance(head, nn.Conv3d)][-deep:]

    def forward(self, skips: list[Tensor], deep: int) -> list[Tensor]:
        x, logits = skips[-1], []
        for i, (up, stage, head) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            x = stage(torch.cat([up(x), skips[-2 - i]], 1))
            if i >= len(self.stages) - deep:
                logits.append(head(x))
        return logits[::-1]


class UNet(nn.Module):
    """The network of a student, a row of plans.STUDENTS: images (b, 1, z, y, x) -> logits (b, outputs, z, y, x)."""

    def __init__(self, student: Student, outputs: int) -> None:
        super().__init__()
        self.encoder = _Encoder(student.features, student.strides)
        self.decoder = _Decoder(student.features, student.strides, outputs)

    def forward(self, image: Tensor, deep: int = 1) -> list[Tensor]:
        """Logits of the `deep` finest levels, that of the image first."""
        return self.decoder(self.encoder(image), deep)

    def blocks(self) -> list[_Block]:
        return [module for module in self.modules() if isinstance(module, _Block)]

    def norms(self) -> list[nn.BatchNorm3d]:
        return [block.norm for block in self.blocks()]


def folded(state: State) -> State:
    """Parameters of the network without norms that answers as the UNet of `state` does with frozen norms, float32.

    A frozen norm scales and shifts each channel by constants, and so does a convolution.
    """
    plain = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".conv.")
        if layer:
            norm = {
                part: state[f"{layer}.norm.{part}"].float()
                for part in ("weight", "bias", "running_mean", "running_var")
            }
            scale = norm["weight"] / torch.sqrt(norm["running_var"] + EPS)
            if kind == "weight":
                plain[name] = value.float() * scale[:, None, None, None, None]
            else:
                plain[name] = (value.float() - norm["running_mean"]) * scale + norm["bias"]
        elif ".norm." not in name:
            plain[name] = value.float()
    return plain


@torch.no_grad()
def unfold(network: UNet, plain: State, batches: Iterable[Tensor]) -> None:
    """Give `network` the parameters of one without norms, with norms that change no answer: the way back from `folded`.

    Filters get back a size at which training changes all of them alike: `folded` made the deepest seventy times
    smaller, and steps as large as before would make them forget what they know. The norms' statistics are those of
    `batches` (b, 1, z, y, x), so that training can go on with those of its own.
    """
    network.load_state_dict({name: value.float() for name, value in plain.items()}, strict=False)
    blocks, norms = network.blocks(), network.norms()
    sums = [torch.zeros((3, norm.num_features), dtype=torch.float64, device=norm.weight.device) for norm in norms]
    scales = []
    for block in blocks:
        size = block.conv.weight.flatten(1).square().mean(1).sqrt()
        scale = torch.where(size > 0, FILTER / size, 1.0)
        block.conv.weight.mul_(scale[:, None, None, None, None])
        block.conv.get_parameter("bias").mul_(scale)
        block.norm.reset_parameters()
        block.norm.weight.div_(scale)
        block.norm.get_buffer("running_var").sub_(EPS)
        block.norm.eval()
        scales.append(scale)

    def look(seen: Tensor) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def at(_: nn.Module, inputs: tuple[Tensor]) -> None:
            value = inputs[0].double()
            axes = (0, 2, 3, 4)
            seen.add_(torch.stack([value.sum(axes), (value**2).sum(axes), torch.ones_like(value).sum(axes)]))

        return at

    hooks = [norm.register_forward_pre_hook(look(seen)) for norm, seen in zip(norms, sums, strict=True)]
    for batch in batches:
        network(batch)
    for norm, scale, hook, (first, second, count) in zip(norms, scales, hooks, sums, strict=True):
        hook.remove()
        mean = first / count
        variance = (second / count - mean**2).clamp(min=0)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.weight.copy_((variance + EPS).sqrt() / scale)
        norm.bias.copy_(mean / scale)


def read_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """What PyTorch saved in a file, if that is tensors and plain values. Raises ValueError, naming the file."""
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read as tensors that PyTorch saved") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no named tensors")
    return content
