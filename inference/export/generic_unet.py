"""The U-Net of nnU-Net v1, under the names that its checkpoints have for parameters.

It differs from nnU-Net v2's PlainConvUNet in the decoder: the convolutions there have the kernels of the next deeper
stage of the encoder, transposed convolutions and outputs have no bias. Its answer is probabilities, which is what
nnU-Net v1 blends and resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

NAME = "nnunet.network_architecture.generic_UNet.Generic_UNet"  # as nnU-Net v1 has it

Axes = Sequence[int]


class _Layer(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: Axes, stride: Axes) -> None:
        super().__init__()
        z, y, x = kernel
        self.conv = nn.Conv3d(inputs, outputs, (z, y, x), _three(stride), (z // 2, y // 2, x // 2))
        self.instnorm = nn.InstanceNorm3d(outputs, eps=1e-5, affine=True)
        self.lrelu = nn.LeakyReLU(0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.lrelu(self.instnorm(self.conv(x)))
        return y


class _Layers(nn.Module):
    """Convolutions of which the first changes the number of features, and the grid if it has a stride."""

    def __init__(self, inputs: int, outputs: int, count: int, kernel: Axes, stride: Axes = (1, 1, 1)) -> None:
        super().__init__()
        others = [_Layer(outputs, outputs, kernel, (1, 1, 1)) for _ in range(count - 1)]
        self.blocks = nn.Sequential(_Layer(inputs, outputs, kernel, stride), *others)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(x)
        return y


class GenericUNet(nn.Module):
    """Image (b, c, z, y, x) -> probabilities (b, k, z, y, x).

    features_per_stage, kernel_sizes, strides  one entry a stage, the first that of the image's own grid
    convs_per_stage                            of the encoder and the decoder, at least 2
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Axes],
        strides: Sequence[Axes],
        convs_per_stage: int,
    ) -> None:
        super().__init__()
        self.strides = strides
        *shallow, deepest = zip([input_channels, *features_per_stage], features_per_stage, kernel_sizes, strides,
                                strict=False)  # fmt: skip
        inputs, features, kernel, stride = deepest
        bottleneck = nn.Sequential(
            _Layers(inputs, features, convs_per_stage - 1, kernel, stride), _Layers(features, features, 1, kernel)
        )
        self.conv_blocks_context = nn.ModuleList(
            [*(_Layers(into, out, convs_per_stage, size, step) for into, out, size, step in shallow), bottleneck]
        )
        self.conv_blocks_localization, self.tu, self.seg_outputs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in reversed(range(len(shallow))):
            features, below = features_per_stage[stage], features_per_stage[stage + 1]
            kernel, stride = kernel_sizes[stage + 1], _three(strides[stage + 1])
            self.tu.append(nn.ConvTranspose3d(below, features, stride, stride, bias=False))
            self.conv_blocks_localization.append(
                nn.Sequential(
                    _Layers(2 * features, features, convs_per_stage - 1, kernel), _Layers(features, features, 1, kernel)
                )
            )
            self.seg_outputs.append(nn.Conv3d(features, num_classes, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skipped = []
        for block in self.conv_blocks_context:
            x = block(x)
            skipped.append(x)
        skipped.pop()
        for up, block in zip(self.tu, self.conv_blocks_localization, strict=True):
            x = block(torch.cat((up(x), skipped.pop()), 1))
        return torch.softmax(self.seg_outputs[-1](x), 1)  # the others are for deep supervision in training


def _three(axes: Axes) -> tuple[int, int, int]:
    z, y, x = axes
    return z, y, x
