"""Instance norms of an ONNX graph as ONNX Runtime's other operators.

Its own adds up the squares of a whole channel number by number in float32: of 64 x 192 x 192 voxels small ones are lost
beside the sum. These sum up each row of voxels by itself first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from .edit import NODE, TENSOR, changed, field, node, whole
from .graph import Node, as_node

NORM = "InstanceNormalization"
LAST, OTHERS, SPACE = "viscera_last", "viscera_others", "viscera_space"  # axes of (b, c, z, y, x) and of (c, z, y, x)
AXES = {LAST: [4], OTHERS: [2, 3], SPACE: [1, 2, 3]}


def with_norms_by_rows(graph: bytes, name: str) -> bytes | None:
    """The graph of a file of this name, whose operators are of version 18, with other norms; None where it has none."""

    def change(of: int, content: memoryview) -> list[bytes] | None:
        norm = as_node(content) if of == NODE else None
        return [field(NODE, one) for one in _by_rows(norm)] if norm and norm.operator == NORM else None

    return changed(graph, name, change, after=[field(TENSOR, _axes(name, axes)) for name, axes in AXES.items()])


def _by_rows(norm: Node) -> Iterator[bytes]:
    """Nodes that compute what a norm does."""
    (image, scale, shift), to = norm.inputs, norm.output

    def mean(of: str) -> Iterator[bytes]:
        """From `of` to `of`-mean."""
        yield node("ReduceMean", [of, LAST], f"{to}/{of}-rows", keepdims=0)
        yield node("ReduceMean", [f"{to}/{of}-rows", OTHERS], f"{to}/{of}-plane", keepdims=1)
        yield node("Unsqueeze", [f"{to}/{of}-plane", LAST], f"{to}/{of}-mean")

    apart, square = f"{to}/apart", f"{to}/square"
    yield from mean(image)
    yield node("Sub", [image, f"{to}/{image}-mean"], apart)
    yield node("Mul", [apart, apart], square)
    yield from mean(square)
    yield _constant(f"{to}/epsilon", norm.attributes.get("epsilon", 1e-5))
    yield node("Add", [f"{to}/{square}-mean", f"{to}/epsilon"], f"{to}/variance")
    yield node("Sqrt", [f"{to}/variance"], f"{to}/deviation")
    yield node("Unsqueeze", [scale, SPACE], f"{to}/scale")
    yield node("Unsqueeze", [shift, SPACE], f"{to}/shift")
    yield node("Div", [f"{to}/scale", f"{to}/deviation"], f"{to}/factor")
    yield node("Mul", [apart, f"{to}/factor"], f"{to}/scaled")
    yield node("Add", [f"{to}/scaled", f"{to}/shift"], to)


def _constant(output: str, value: float) -> bytes:
    """A node that gives one number, float32."""
    number = b"\x15" + struct.pack("<f", value)  # field 2, 4 bytes
    attribute = field(1, b"value_float") + number + whole(20, 1)  # AttributeProto.FLOAT
    return field(2, output.encode()) + field(4, b"Constant") + field(5, attribute)


def _axes(name: str, axes: list[int]) -> bytes:
    """A tensor of whole numbers."""
    values = np.array(axes, "<i8").tobytes()
    return whole(1, len(axes)) + whole(2, 7) + field(8, name.encode()) + field(9, values)
