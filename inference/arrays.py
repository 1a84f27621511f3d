"""The array library of a run, behind one name: NumPy, or PyTorch on the GPU where that is the engine.

Numerics take the library as `xp` and are written once (array API standard, section
"Use cases": https://data-apis.org/array-api/latest/use_cases.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import numpy as np

# Bits of a float32, for `to_half`. A float16 has 13 digits less; 1.5 times a power of two keeps its exponent beside any
# smaller number; the steps of float16 below 2**-14, which are the same, are those of float32 from 0.5 to 1.
EXPONENT = np.int32(0x7F800000)
HALF_DROPS = np.int32(13)
STEPS_OF_HALF = np.int32((13 << 23) + 0x400000)
SMALLEST_STEPS = np.float32(0.75).view(np.int32)
HALF_BIAS = np.int32((126 << 10) + 0x200)  # what exponent and first digit of the large number have too much
HALF_INFINITE = np.int32(0x7C00)
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)  # every float16
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
    """Round float32 to the values that float16 has, in place; what is beyond its range becomes infinite."""
    if xp is np and array.ndim > 2:  # planes stay in the cache, and what is held beside one is small
        for part in array:
            round_to_half(part, xp)
    else:
        array[...] = from_half(to_half(array, xp), xp)


def add_in_half(sums: Array, values: Array, xp: Any) -> None:
    """Add float32 to float16, in place: rounded once."""
    sums[...] = to_half(from_half(sums, xp) + values, xp)


def to_half(array: Array, xp: Any) -> Array:
    """Float32 as float16; what is beyond its range, and what is no number, is infinite.

    NumPy's own conversion takes twice as long, and 40 times where values are below 2**-14.
    """
    if xp is not np:
        return as_type(array, xp.float16)
    bits = np.ascontiguousarray(array).view(np.int32)
    # A number so large that float32 beside it has the steps of float16 beside `array`: the sum is rounded to these.
    large = bits & EXPONENT
    large += STEPS_OF_HALF
    np.maximum(large, SMALLEST_STEPS, out=large)
    steps = (bits.view(np.float32) + large.view(np.float32)).view(np.int32)
    steps -= large
    large >>= HALF_DROPS
    large -= HALF_BIAS
    large += np.abs(steps, out=steps)
    np.minimum(large, HALF_INFINITE, out=large)
    half = large.astype(np.int16)
    half |= (bits >> np.int32(16)).astype(np.int16) & np.int16(-0x8000)  # the sign
    return half.view(np.float16)


def from_half(array: Array, xp: Any) -> Array:
    """Float16 as float32. NumPy's own conversion takes twice as long."""
    return HALVES.take(array.view(np.uint16)) if xp is np else as_type(array, xp.float32)


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
