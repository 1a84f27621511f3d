"""What changes the numbers of a network in training.train: Muon the filters of its blocks, AdamW the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from training.unet import UNet

WEIGHT_DECAY = 2e-2  # times the learning rate
MUON = 4.0  # Muon's learning rate, as a multiple of AdamW's; its steps have a root mean square of 0.2 times it


def optimizers(network: UNet, rate: float) -> list[Optimizer]:
    """Of a network in channels_last_3d, at a learning rate."""
    filters = [block.conv.get_parameter("weight") for block in network.blocks() if block.conv.in_channels > 1]
    taken = set(map(id, filters))
    rest = [value for value in network.parameters() if id(value) not in taken]
    adam = AdamW(rest, rate, weight_decay=WEIGHT_DECAY, fused=filters[0].device.type == "cuda")
    return [_muon(filters, rate), adam]


def set_rate(every: Sequence[Optimizer], rate: float) -> None:
    """Make `rate` the learning rate."""
    for optimizer in every:
        for group in optimizer.param_groups:
            group["lr"] = rate * (MUON if isinstance(optimizer, Muon) else 1.0)


def _muon(filters: Sequence[nn.Parameter], rate: float) -> Muon:
    """Muon makes all singular values of a step alike, so that what few gradients ask for is learned as fast. After
    Jordan et al., kellerjordan.github.io/posts/muon (2024); the size of steps as in Liu et al., arXiv 2502.16982.

    PyTorch's takes matrices: here views of filters, with a row for each.
    """
    matrices = [nn.Parameter(_rows(one.detach()).view(len(one), -1)) for one in filters]
    muon = Muon(matrices, MUON * rate, weight_decay=WEIGHT_DECAY / MUON, adjust_lr_fn="match_rms_adamw")

    def take_gradients(*_: Any) -> None:
        for matrix, one in zip(matrices, filters, strict=True):
            matrix.grad = None if one.grad is None else _rows(one.grad).reshape(matrix.shape)

    muon.register_step_pre_hook(take_gradients)
    return muon


def _rows(filters: Tensor) -> Tensor:
    """Filters (out, in, z, y, x) in the order in which channels_last_3d has them in memory."""
    return filters.permute(0, 2, 3, 4, 1)
