"""The graph of an exported network, read from its ONNX file without the package onnx, whose import takes as long as
the weights. The format is protocol buffers' (protobuf.dev/programming-guides/encoding); numbers of fields are those of
onnx.proto (onnx 1.19, IR version 10).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import WeightsError, shown

DTYPES = {1: "<f4", 7: "<i8", 10: "<f2"}  # of TensorProto.data_type
Fields = dict[int, list[Any]]  # number of a field -> its values: whole numbers, or views of bytes


@dataclass(frozen=True)
class Node:
    """One operation, with the names of what it takes and the name of what it gives."""

    operator: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of computing; weights by name."""

    nodes: list[Node]
    weights: dict[str, np.ndarray]
    source: str
    target: str


def read_graph(path: Path, beside: Collection[str]) -> Graph:
    """Read a graph, and its weights from it or from files in its folder, of which `beside` has the names.

    Raises WeightsError where the file is no graph of one input and one output, or has weights of another type or
    elsewhere.
    """
    try:
        (model,) = fields(path.read_bytes())[7]
        graph = fields(model)
        weights = dict(_weights(fields(one), path, beside) for one in graph[5])
        (source,), (target,) = ([_text(fields(value)[1]) for value in graph[number]] for number in (11, 12))
        return Graph([as_node(node) for node in graph[1]], weights, source, target)
    except (KeyError, ValueError, IndexError, struct.error) as error:
        raise WeightsError(f"{path} is not a graph that engine torch can read") from error


def fields(message: bytes | memoryview) -> Fields:
    """A message of protocol buffers, taken apart; its parts are views of it, since weights are large."""
    found: Fields = defaultdict(list)
    view = memoryview(message)
    for part in parts(view):
        content = view[part.start : part.end]
        found[part.number].append(_number(content, 0)[0] if part.kind == 0 else content)
    return found


class Part(NamedTuple):
    """A field of a message: its number and wire type, and the bytes of its key and of its content."""

    number: int
    kind: int
    key: int
    start: int
    end: int


def parts(view: memoryview) -> Iterator[Part]:
    """The fields of a message of protocol buffers, in their order. Raises ValueError or IndexError where it is none."""
    at = 0
    while at < len(view):
        key = at
        number, at = _number(view, at)
        kind = number & 7
        if kind == 0:
            size = _number(view, at)[1] - at
        elif kind == 2:
            size, at = _number(view, at)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or at + size > len(view):
            raise ValueError("cut off, or of another kind")
        yield Part(number >> 3, kind, key, at, at + size)
        at += size


def _number(view: memoryview, at: int) -> tuple[int, int]:
    """A whole number of 7 bits a byte, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value - (1 << 64) if value >> 63 else value, at


def _text(values: list[Any]) -> str:
    return str(values[0], "utf-8") if values else ""


def _numbers(values: list[Any]) -> list[int]:
    """A repeated field of whole numbers, packed or not."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        at, view = 0, memoryview(value)
        while at < len(view):
            number, at = _number(view, at)
            numbers.append(number)
    return numbers


def as_node(message: bytes | memoryview) -> Node:
    """A NodeProto with one output."""
    node = fields(message)
    attributes = dict(_attribute(fields(one)) for one in node[5])
    (output,) = node[2]
    return Node(_text(node[4]), [str(name, "utf-8") for name in node[1]], str(output, "utf-8"), attributes)


def _attribute(attribute: Fields) -> tuple[str, Any]:
    kind = attribute[20][0]
    value: Any
    if kind == 1:
        (value,) = struct.unpack("<f", attribute[2][0])
    elif kind == 2:
        value = attribute[3][0]
    elif kind == 3:
        value = bytes(attribute[4][0])  # a view would keep the whole file
    elif kind == 7:
        value = _numbers(attribute[8])
    else:
        raise ValueError(f"attribute type {kind}")
    return _text(attribute[1]), value


def _weights(tensor: Fields, path: Path, beside: Collection[str]) -> tuple[str, np.ndarray]:
    dtype, shape = np.dtype(DTYPES[tensor[2][0]]), _numbers(tensor[1])
    if tensor[14] == [1]:  # beside the graph
        where = {_text(one[1]): _text(one[2]) for one in map(fields, tensor[13])}
        name = where["location"]
        if name not in beside or name != Path(name).name:
            raise WeightsError(f"{path} has weights in {shown(name)}, which is not on the network's card")
        count = int(where["length"]) // dtype.itemsize
        values = np.fromfile(path.with_name(name), dtype, count, offset=int(where.get("offset", 0)))
    else:
        values = np.frombuffer(tensor[9][0], dtype).copy()
    return _text(tensor[8]), values.reshape(shape)
