"""Plain values out of a file that somebody else wrote: of the right type and of bounded size.

Each reader takes a value and its name in the file, and raises ValueError with one sentence that holds that name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

from ..errors import WeightsError

T = TypeVar("T")
LARGEST_JSON = 64 * 2**20  # bytes; nnU-Net's plans.json have some 20 kB
_repr = Repr()
_repr.maxstring = _repr.maxother = 100
_repr.maxlist = _repr.maxdict = 12
_repr.maxlevel = 3


def shown(value: Any) -> str:
    """`value` for a message: at most about a line of it, control characters escaped."""
    return _repr.repr(value)


def need(fields: Mapping[str, Any], name: str) -> Any:
    """The value of a key that must be there."""
    if name not in fields:
        raise ValueError(f"{name} is missing")
    return fields[name]


def mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}, not a table of names and values")
    return value


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}, not a name")
    return value


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)}, neither true nor false")
    return value


def whole(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {shown(value)}, not a whole number from {low} to {high}")
    return value


def number(value: Any, name: str, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {shown(value)}, not a number from {low:g} to {high:g}")
    return value


def several(value: Any, name: str, count: int, read: Callable[..., T], *bounds: float) -> list[T]:
    """A list of `count` values, each read by `read`."""
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"{name} is {shown(value)}, not a list of {count}")
    return [read(item, name, *bounds) for item in value]


def one_of(value: Any, name: str, choices: Mapping[str | None, T]) -> T:
    """What stands for a name in a table of ours; nothing is looked up by it elsewhere."""
    if not isinstance(value, str | None) or value not in choices:
        raise ValueError(f"{name} {shown(value)} is not one of {', '.join(map(str, choices))}")
    return choices[value]


def read_json(path: Path) -> dict[str, Any]:
    """The table that a JSON file holds. Raises WeightsError if there is none."""
    try:
        if not path.is_file():
            raise ValueError("it is not a file" if path.exists() else "it is missing")
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it has over {LARGEST_JSON:,} bytes")
        return mapping(json.loads(path.read_bytes()), "what it holds")
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
