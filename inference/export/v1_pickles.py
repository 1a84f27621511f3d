"""Pickles that nnU-Net v1 writes, read without running anything in them.

A pickle names functions and calls them. Here a name is only looked up in a table of ours, and what stands there makes
plain values: NumPy's numbers become Python's, its arrays lists.
"""

from __future__ import annotations

import io
import pickle  # nosec B403
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from .checkpoint import SLACK, NotPlainError, limited_memory
from .plain import shown

PLAIN = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d{1,5}")  # NumPy's numbers and text; objects would be pickles again
MOST_AXES = 8  # of an array


def read_pickle(path: Path) -> Any:
    """What a pickle holds, if that is plain values and NumPy's numbers, text and arrays of these, which become lists.

    Values that occur several times in it are shared. Raises WeightsError if the file is missing, damaged, holds
    anything else, or would take much more memory than its own size.
    """
    try:
        content = path.read_bytes()
        with limited_memory(4 * len(content) + SLACK):  # a number of 20 bytes takes 40 in a list
            return _Reader(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(f"{path} cannot be read: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    if isinstance(error, NotPlainError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, MemoryError):
        return "it would take far more memory than its own size"
    return f"it is damaged or not a pickle ({str(error) or type(error).__name__})"


class _Reader(pickle.Unpickler):
    """Finds nothing but what CALLS holds: bandit asks to look."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in CALLS:
            what = shown(f"{module}.{name}")
            raise NotPlainError(f"it holds {what}, and only plain values are read, since others could run code")
        return CALLS[f"{module}.{name}"]


class _Call:
    """A function that a pickle may call, and of which it can change nothing: a pickle may also set attributes."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise NotPlainError("it holds changes to functions, which are not plain values")


class _Dtype:
    """A plain dtype of NumPy."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any = None, *_: Any) -> None:
        if not isinstance(code, str) or not PLAIN.fullmatch(code):
            raise NotPlainError(f"it holds a NumPy value of type {shown(code)}, which is neither a number nor text")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        _, order, *fields = state[:5]
        if order not in ("<", ">", "=", "|") or fields != [None, None, None]:
            raise NotPlainError("it holds a NumPy value with fields")
        self.order = order

    def values(self, content: Any, count: int) -> np.ndarray:
        """`count` values out of their bytes. Raises ValueError if there are more or fewer."""
        dtype = np.dtype(self.order + self.code)
        if not isinstance(content, bytes) or len(content) != count * dtype.itemsize or not content:
            raise ValueError("a NumPy value has more or fewer bytes than its type and shape say")
        return np.frombuffer(content, dtype)


class _Array(list[Any]):
    """An array of NumPy as a list, or as lists of lists. Empty until its state is read."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, in_columns, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or not 1 <= len(shape) <= MOST_AXES:
            raise ValueError("an array of NumPy without a shape or a type")
        if shape == (0,):
            return
        if not all(type(side) is int and side > 0 for side in shape):
            raise ValueError(f"an array of NumPy has the shape {shown(shape)}")
        values = dtype.values(content, prod(shape))
        self[:] = values.reshape(shape, order="F" if in_columns else "C").tolist()


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, _Dtype):
        raise NotPlainError("it holds a NumPy value without a type")
    return dtype.values(content, 1)[0].item()


# By the names that Python, NumPy 1 and NumPy 2 pickle them under.
CALLS = {
    "collections.OrderedDict": _Call(dict),
    "builtins.set": _Call(set),
    "numpy.dtype": _Call(_Dtype),
    "numpy.ndarray": _Call(_Array),  # only given to _reconstruct
    **{f"numpy.{core}.multiarray._reconstruct": _Call(lambda *_: _Array()) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Call(_scalar) for core in ("core", "_core")},
}
