"""An ONNX graph with parts replaced, as bytes for ONNX Runtime. Messages are those of onnx.proto (onnx 1.19), as
engines.graph reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .graph import parts

GRAPH = 7  # of a ModelProto
NODE, TENSOR, INPUT, OUTPUT = 1, 5, 11, 12  # of a GraphProto
RAW_DATA = 9  # of a TensorProto
# Number and content of a field of the graph -> the fields in its place, or None: it stays.
Change = Callable[[int, memoryview], Iterable[bytes] | None]


def changed(
    content: bytes, name: str, change: Change, before: Iterable[bytes] = (), after: Iterable[bytes] = ()
) -> bytes | None:
    """A graph with changed fields, and with others before and after all of its own; None where none is changed.

    name  of its file. Its weights are where they were, in that file or beside it: ONNX Runtime keeps what it is given
    """
    model = memoryview(content)
    (graph,) = (part for part in parts(model) if part.number == GRAPH)
    inside, pieces, found = model[graph.start : graph.end], list[bytes | memoryview](before), False
    for part in parts(inside):
        new = change(part.number, inside[part.start : part.end])
        if new is not None:
            found = True
            pieces += new
        elif part.number == TENSOR:
            pieces.append(field(TENSOR, _outside(model, graph.start + part.start, graph.start + part.end, name)))
        else:
            pieces.append(inside[part.key : part.end])
    if not found:
        return None
    pieces += after
    size = sum(map(len, pieces))
    return b"".join([model[: graph.key], number(GRAPH << 3 | 2), number(size), *pieces, model[graph.end :]])


def _outside(model: memoryview, start: int, end: int, name: str) -> bytes:
    """The tensor between two bytes of a model, whose numbers it looks for in the model's file."""
    pieces = []
    for part in parts(model[start:end]):
        if part.number == RAW_DATA:
            where = {"location": name, "offset": start + part.start, "length": part.end - part.start}
            for key, value in where.items():
                pieces.append(field(13, field(1, key.encode()) + field(2, str(value).encode())))
            pieces.append(whole(14, 1))  # data_location: EXTERNAL
        else:
            pieces.append(bytes(model[start + part.key : start + part.end]))
    return b"".join(pieces)


def node(operator: str, inputs: list[str], output: str, **flags: int) -> bytes:
    """A NodeProto; flags are attributes that are whole numbers."""
    names = [*(field(1, name.encode()) for name in inputs), field(2, output.encode()), field(4, operator.encode())]
    attributes = [
        field(1, name.encode()) + whole(3, value) + whole(20, 2)  # AttributeProto.INT
        for name, value in flags.items()
    ]
    return b"".join([*names, *(field(5, one) for one in attributes)])


def field(of: int, content: bytes) -> bytes:
    return number(of << 3 | 2) + number(len(content)) + content


def whole(of: int, value: int) -> bytes:
    return number(of << 3) + number(value)


def number(value: int) -> bytes:
    """A whole number, 7 bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
