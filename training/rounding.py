"""Passes of a network rounded as int8 rounds them, so that training makes it bear that.

After Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018: what goes into a convolution and its weights are rounded on the way forward, gradients pass as if not.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

OUTLIERS = 1e-4  # of activations are cut off at either end, as training.quantize does
SAMPLED = 101  # every so many activations tell the range


class _Rounded(torch.autograd.Function):
    """`x` on the grid of steps of `step` from `low` to `high`; the gradient passes through."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: Any, low: Any, high: Any) -> torch.Tensor:
        return (x.clamp(low, high) - low).div_(step).round_().mul_(step).add_(low)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return *gradients, None, None, None


def _rounded(x: torch.Tensor, step: Any, low: Any, high: Any) -> torch.Tensor:
    result: torch.Tensor = _Rounded.apply(x, step, low, high)  # type: ignore[no-untyped-call]
    return result


class Rounding:
    """Rounds the passes of `network` while `on` is True.

    Activations have 256 levels between quantiles seen on `images` (1, 1, z, y, x), weights 255 around zero for each
    output channel, as OpenVINO's int8.
    """

    def __init__(self, network: nn.Module, images: Sequence[torch.Tensor]) -> None:
        self.on = False
        layers = [module for module in network.modules() if isinstance(module, nn.Conv3d | nn.ConvTranspose3d)]
        seen: dict[nn.Module, list[np.ndarray]] = {layer: [] for layer in layers}

        def note(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            values = inputs[0].flatten()[::SAMPLED].float().cpu().numpy()
            seen[layer].append(np.quantile(values, [OUTLIERS, 1 - OUTLIERS]))

        hooks = [layer.register_forward_pre_hook(note) for layer in layers]
        with torch.no_grad():
            for image in images:
                network(image)
        for hook in hooks:
            hook.remove()
        for layer, ranges in seen.items():
            if not ranges:
                continue  # the layers of deep supervision, which do not run
            low, high = (float(edge) for edge in np.mean(ranges, 0))
            layer.forward = MethodType(self._forward(low, high), layer)

    def _forward(self, low: float, high: float) -> Any:
        def forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
            weight = layer.weight
            upward = isinstance(layer, nn.ConvTranspose3d)
            if self.on:
                x = _rounded(x, (high - low) / 255, low, high)
                most = weight.detach().abs().amax((0, 2, 3, 4) if upward else (1, 2, 3, 4), keepdim=True)
                weight = _rounded(weight, most / 127, -most, most)
            convolve = functional.conv_transpose3d if upward else functional.conv3d
            return convolve(x, weight, layer.bias, layer.stride, layer.padding)

        return forward
