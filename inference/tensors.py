"""NumPy's names for PyTorch's tensors on one device: the array library of a run whose engine is PyTorch.

PyTorch is there anyway, its kernels come compiled, and one pool holds all of a GPU's memory. Only what our numerics use
is here, with NumPy's meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
import torch

Tensor = torch.Tensor


class Tensors:
    """Stands for the module numpy."""

    inf = inf
    float16, float32, uint8 = torch.float16, torch.float32, torch.uint8
    uint16 = torch.int32  # PyTorch stores uint16 but adds none

    clip = staticmethod(torch.clip)
    exp = staticmethod(torch.exp)
    flip = staticmethod(torch.flip)
    matmul = staticmethod(torch.matmul)
    maximum = staticmethod(torch.maximum)
    moveaxis = staticmethod(torch.moveaxis)
    multiply = staticmethod(torch.multiply)
    ones_like = staticmethod(torch.ones_like)
    stack = staticmethod(torch.stack)
    tanh = staticmethod(torch.tanh)
    where = staticmethod(torch.where)

    def __init__(self, device: str) -> None:
        self.device = device

    def empty(self, shape: int | Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, shape: int | Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def asarray(self, array: np.ndarray | Tensor) -> Tensor:
        if isinstance(array, np.ndarray):
            native = array.dtype.newbyteorder("=")  # PyTorch has no other, and warns of what cannot be written to
            array = torch.from_numpy(np.require(array, native, ("C", "W")))
        return array.to(self.device)

    def argmax(self, array: Tensor, axis: int) -> Tensor:
        return torch.argmax(array, axis)

    def ascontiguousarray(self, array: Tensor) -> Tensor:
        return array.contiguous()

    def concatenate(self, arrays: Sequence[Tensor], axis: int = 0) -> Tensor:
        return torch.cat(list(arrays), axis)

    def max(self, array: Tensor, axis: int | tuple[int, ...], keepdims: bool = False) -> Tensor:
        return torch.amax(array, axis, keepdims)

    def min(self, array: Tensor, axis: int | tuple[int, ...], keepdims: bool = False) -> Tensor:
        return torch.amin(array, axis, keepdims)

    def pad(self, array: Tensor, widths: Sequence[tuple[int, int]], mode: str) -> Tensor:
        """Mode "edge" alone."""
        assert mode == "edge"
        for axis, (before, after) in enumerate(widths):
            if before or after:
                n = array.shape[axis]
                index = torch.arange(-before, n + after, device=array.device).clip(0, n - 1)
                array = array.index_select(axis, index)
        return array

    def tensordot(self, a: Tensor, b: Tensor, axes: tuple[int, int]) -> Tensor:
        return torch.tensordot(a, b, dims=([axes[0]], [axes[1]]))

    def free_blocks(self) -> None:
        if self.device == "cuda":
            torch.cuda.empty_cache()
