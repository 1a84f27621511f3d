"""The array library of a run, behind one name: NumPy on the CPU; on the GPU that of its engine, PyTorch or CuPy.

Numerics take the library as `xp` and are written once (array API standard, section
"Use cases": https://data-apis.org/array-api/latest/use_cases.html).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import DeviceError

Array = Any  # numpy.ndarray, torch.Tensor or cupy.ndarray
Network = Callable[[Array], Array]  # (b, c, z, y, x) float32, C-contiguous -> (b, k, z, y, x) float32


def array_library(device: str, engine: str) -> Any:
    """NumPy for "cpu"; for "cuda" PyTorch (`tensors`) if that is the engine, else CuPy.

    Raises DeviceError where CuPy or a CUDA device is missing.
    """
    if device == "cpu":
        return np
    if engine == "torch":
        from .tensors import Tensors

        return Tensors(device)
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"device cuda needs CuPy, which is not installed ({error})") from error
    try:
        cupy.zeros(1, cupy.float32)  # the cheapest use of the driver, the runtime and the allocator
    except Exception as error:  # CuPy raises a type of its own for each layer that can fail
        raise DeviceError(f"device cuda cannot be used: {error}") from error
    return cupy


def free_blocks(xp: Any) -> None:
    """Give back what the library keeps of a GPU's memory for its next arrays; NumPy keeps nothing."""
    if hasattr(xp, "free_blocks"):
        xp.free_blocks()
    elif xp is not np:
        xp.get_default_memory_pool().free_all_blocks()


def to_host(array: Array) -> np.ndarray:
    """The same values as a NumPy array; no copy where it already is one."""
    if isinstance(array, np.ndarray):
        return array
    return array.get() if hasattr(array, "get") else array.cpu().numpy()


def as_type(array: Array, dtype: Any) -> Array:
    """A copy of another type."""
    return array.astype(dtype) if hasattr(array, "astype") else array.to(dtype, copy=True)


def copy(array: Array) -> Array:
    """The same values elsewhere."""
    return array.copy() if hasattr(array, "copy") else array.clone()
