"""Instance norms of an ONNX graph as ONNX Runtime's other operators.

Its own adds up the squares of a whole channel number by number in float32: of 64 x 192 x 192 voxels small ones are lost
beside the sum. These sum up each row of voxels by itself first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .graph import Node, as_node, parts

NORM = "InstanceNormalization"
LAST, OTHERS, SPACE = "viscera_last", "viscera_others", "viscera_space"  # axes of (b, c, z, y, x) and of (c, z, y, x)
RAW_DATA = 9  # of a TensorProto
AXES = {LAST: [4], OTHERS: [2, 3], SPACE: [1, 2, 3]}


def with_norms_by_rows(path: Path) -> bytes | None:
    """The graph in a file, whose operators are of version 18, with other norms; None where it has none.

    Its weights are where they were, in that file or beside it: ONNX Runtime keeps what it is given.
    """
    model = memoryview(path.read_bytes())
    (graph,) = (part for part in parts(model) if part.number == 7)
    inside, pieces, found = model[graph.start : graph.end], list[bytes | memoryview](), False
    for part in parts(inside):
        node = as_node(inside[part.start : part.end]) if part.number == 1 else None
        if node and node.operator == NORM:
            found = True
            pieces += [_field(1, one) for one in _by_rows(node)]
        elif part.number == 5:
            pieces.append(_field(5, _outside(model, graph.start + part.start, graph.start + part.end, path.name)))
        else:
            pieces.append(inside[part.key : part.end])
    if not found:
        return None
    pieces += [_field(5, _axes(name, axes)) for name, axes in AXES.items()]
    size = sum(map(len, pieces))
    return b"".join([model[: graph.key], _number(7 << 3 | 2), _number(size), *pieces, model[graph.end :]])


def _outside(model: memoryview, start: int, end: int, name: str) -> bytes:
    """The tensor between two bytes of a model, whose numbers it looks for in the model's file."""
    pieces = []
    for part in parts(model[start:end]):
        if part.number == RAW_DATA:
            where = {"location": name, "offset": start + part.start, "length": part.end - part.start}
            for key, value in where.items():
                pieces.append(_field(13, _field(1, key.encode()) + _field(2, str(value).encode())))
            pieces.append(_whole(14, 1))  # data_location: EXTERNAL
        else:
            pieces.append(bytes(model[start + part.key : start + part.end]))
    return b"".join(pieces)


def _by_rows(norm: Node) -> Iterator[bytes]:
    """Nodes that compute what a norm does."""
    (image, scale, shift), to = norm.inputs, norm.output

    def mean(of: str) -> Iterator[bytes]:
        """From `of` to `of`-mean."""
        yield _node("ReduceMean", [of, LAST], f"{to}/{of}-rows", keepdims=0)
        yield _node("ReduceMean", [f"{to}/{of}-rows", OTHERS], f"{to}/{of}-plane", keepdims=1)
        yield _node("Unsqueeze", [f"{to}/{of}-plane", LAST], f"{to}/{of}-mean")

    apart, square = f"{to}/apart", f"{to}/square"
    yield from mean(image)
    yield _node("Sub", [image, f"{to}/{image}-mean"], apart)
    yield _node("Mul", [apart, apart], square)
    yield from mean(square)
    yield _constant(f"{to}/epsilon", norm.attributes.get("epsilon", 1e-5))
    yield _node("Add", [f"{to}/{square}-mean", f"{to}/epsilon"], f"{to}/variance")
    yield _node("Sqrt", [f"{to}/variance"], f"{to}/deviation")
    yield _node("Unsqueeze", [scale, SPACE], f"{to}/scale")
    yield _node("Unsqueeze", [shift, SPACE], f"{to}/shift")
    yield _node("Div", [f"{to}/scale", f"{to}/deviation"], f"{to}/factor")
    yield _node("Mul", [apart, f"{to}/factor"], f"{to}/scaled")
    yield _node("Add", [f"{to}/scaled", f"{to}/shift"], to)


# Messages of onnx.proto (onnx 1.19), as engines.graph reads them.


def _node(operator: str, inputs: list[str], output: str, **flags: int) -> bytes:
    names = [*(_field(1, name.encode()) for name in inputs), _field(2, output.encode()), _field(4, operator.encode())]
    attributes = [
        _field(1, name.encode()) + _whole(3, value) + _whole(20, 2)  # AttributeProto.INT
        for name, value in flags.items()
    ]
    return b"".join([*names, *(_field(5, one) for one in attributes)])


def _constant(output: str, value: float) -> bytes:
    """A node that gives one number, float32."""
    number = b"\x15" + struct.pack("<f", value)  # field 2, 4 bytes
    attribute = _field(1, b"value_float") + number + _whole(20, 1)  # AttributeProto.FLOAT
    return _field(2, output.encode()) + _field(4, b"Constant") + _field(5, attribute)


def _axes(name: str, axes: list[int]) -> bytes:
    """A tensor of whole numbers."""
    values = np.array(axes, "<i8").tobytes()
    return _whole(1, len(axes)) + _whole(2, 7) + _field(8, name.encode()) + _field(9, values)


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _whole(number: int, value: int) -> bytes:
    return _number(number << 3) + _number(value)


def _number(value: int) -> bytes:
    """A whole number, 7 bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
