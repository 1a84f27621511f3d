"""The graph of an exported network, read from its ONNX file without the package onnx, whose import takes as long as
the weights. The format is protocol buffers' (protobuf.dev/programming-guides/encoding); numbers of fields are those of
onnx.proto (onnx 1.19, IR version 10).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError, shown

DTYPES = {1: "<f4", 7: "<i8", 10: "<f2"}  # of TensorProto.data_type
Fields = dict[int, list[Any]]  # number of a field -> its values: whole numbers, or bytes


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
        return Graph([_node(fields(node)) for node in graph[1]], weights, source, target)
    except (KeyError, ValueError, IndexError, struct.error) as error:
        raise WeightsError(f"{path} is not a graph that engine torch can read") from error


def fields(message: bytes) -> Fields:
    """A message of protocol buffers, taken apart."""
    found: Fields = defaultdict(list)
    view, at = memoryview(message), 0
    while at < len(view):
        key, at = _number(view, at)
        kind = key & 7
        value: int | bytes
        if kind == 0:
            value, at = _number(view, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                if kind != 2:
                    raise ValueError(f"wire type {kind}")
                size, at = _number(view, at)
            if at + size > len(view):
                raise ValueError("cut off")
            value, at = bytes(view[at : at + size]), at + size
        found[key >> 3].append(value)
    return found


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
    return values[0].decode() if values else ""


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


def _node(node: Fields) -> Node:
    attributes = dict(_attribute(fields(one)) for one in node[5])
    (output,) = node[2]
    return Node(_text(node[4]), [name.decode() for name in node[1]], output.decode(), attributes)


def _attribute(attribute: Fields) -> tuple[str, Any]:
    kind = attribute[20][0]
    value: Any
    if kind == 1:
        (value,) = struct.unpack("<f", attribute[2][0])
    elif kind == 2:
        value = attribute[3][0]
    elif kind == 3:
        value = attribute[4][0]
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
            raise WeightsError(f"{path} has weights in {shown(name)}, which is no file of it on the network's card")
        count = int(where["length"]) // dtype.itemsize
        values = np.fromfile(path.with_name(name), dtype, count, offset=int(where.get("offset", 0)))
    else:
        values = np.frombuffer(tensor[9][0], dtype).copy()
    return _text(tensor[8]), values.reshape(shape)
