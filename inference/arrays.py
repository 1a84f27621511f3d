"""The array library of a run, behind one name: NumPy, or PyTorch on the GPU where that is the engine.

Numerics take the library as `xp` and are written once (array API standard, section
"Use cases": https://data-apis.org/array-api/latest/use_cases.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import numpy as np

HALF_MOST = 65504.0  # in float16
HALF_NORMAL = np.float32(2.0**-14)  # below it float16's steps are 2**-24
SMALL_SUM = np.float32(0.75)
HALF_DROPS = 13  # bits of a float32's fraction
Array = Any  # numpy.ndarray or torch.Tensor
Network = Callable[[Array], Array]  # (b, c, z, y, x) float32, C-contiguous -> (b, k, z, y, x) float32


def array_library(device: str, engine: str) -> Any:
    """NumPy, or for engine torch on "cuda" PyTorch (`tensors`)."""
    if device == "cpu" or engine != "torch":
        return np
    from .tensors import Tensors

    return Tensors(device)


def free_blocks(xp: Any) -> None:
    """Give back what the library keeps of a GPU's memory for its next arrays; NumPy keeps nothing."""
    if xp is not np:
        xp.free_blocks()


def to_host(array: Array) -> np.ndarray:
    """The same values as a NumPy array; no copy where it already is one."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def as_type(array: Array, dtype: Any) -> Array:
    """A copy of another type."""
    return array.astype(dtype) if hasattr(array, "astype") else array.to(dtype, copy=True)


def round_to_half(array: Array, xp: Any) -> None:
    """Round float32 to the values that float16 has, in place; beyond its range as finely, or to its end.

    NumPy's own conversion takes four times as long.
    """
    if xp is not np:
        array[...] = as_type(xp.clip(array, -HALF_MOST, HALF_MOST), xp.float16)
        return
    if array.ndim > 2:  # planes stay in the cache
        for part in array:
            round_to_half(part, xp)
        return
    small = np.abs(array) < HALF_NORMAL
    of_small = (array + SMALL_SUM) - SMALL_SUM  # float32 beside it has the steps of float16 beside 0
    bits = array.view(np.uint32)
    up = bits >> np.uint32(HALF_DROPS)
    up &= np.uint32(1)  # of two that are equally near the even one
    up += np.uint32((1 << HALF_DROPS - 1) - 1)
    bits += up
    bits &= np.uint32(0xFFFFFFFF << HALF_DROPS & 0xFFFFFFFF)
    np.copyto(array, of_small, where=small)


def copy(array: Array) -> Array:
    """The same values elsewhere."""
    return array.copy() if hasattr(array, "copy") else array.clone()


def among(labels: np.ndarray, values: Iterable[int]) -> np.ndarray:
    """Where labels, uint8, have one of these values. np.isin takes ten bytes a voxel for it."""
    wanted = np.zeros(256, bool)
    wanted[list(values)] = True
    return wanted[labels]


def are_numbers(array: Array) -> bool:
    """Whether none of a thinned sample (every 2nd x 4th x 4th voxel) is NaN or infinite: what overflows in a network
    spreads over all that its layers see."""
    return isfinite(float(array[..., ::2, ::4, ::4].sum()))
