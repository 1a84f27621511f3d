"""An ONNX graph of float16 with float32 at its two ends.

A GPU rounds what comes in and widens what goes out then. Of a window of 4 million voxels and 15 labels that is 60
million numbers, for which NumPy has one thread.
"""

from __future__ import annotations

from .edit import INPUT, NODE, OUTPUT, changed, field, node, whole
from .graph import Fields, fields, parts

FLOAT, HALF = 1, 10  # of TensorProto.data_type
OUTSIDE = "/float32"  # added to the names of the ends


def with_float32_ends(model: bytes, name: str) -> bytes:
    """The graph of a file of this name, of one float16 input and one output, between casts."""
    graph = fields(fields(model)[7][0])
    source, target = (_name(graph, end) for end in (INPUT, OUTPUT))

    def change(of: int, content: memoryview) -> list[bytes] | None:
        return [field(of, _as_float32(content))] if of in (INPUT, OUTPUT) else None

    given = field(NODE, node("Cast", [source + OUTSIDE], source, to=HALF))
    answer = field(NODE, node("Cast", [target], target + OUTSIDE, to=FLOAT))
    between = changed(model, name, change, [given], [answer])
    assert between is not None  # every graph has ends
    return between


def _name(graph: Fields, end: int) -> str:
    (value,) = graph[end]
    return str(fields(value)[1][0], "utf-8")


def _as_float32(value: memoryview) -> bytes:
    """A ValueInfoProto of another name and type."""
    name, (kind,) = fields(value)[1][0], fields(value)[2]
    (tensor,) = fields(kind)[1]
    shape = b"".join(bytes(tensor[part.key : part.end]) for part in parts(tensor) if part.number != 1)
    return field(1, bytes(name) + OUTSIDE.encode()) + field(2, field(1, whole(1, FLOAT) + shape))
