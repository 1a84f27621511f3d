"""A graph that is the mean of several folds, with the logits of all of them as its answer: (b, folds * k, z, y, x)."""

from __future__ import annotations

from dataclasses import replace

from .edit import NODE, OUTPUT, changed, field, node, whole
from .graph import Graph, Node, as_node, fields

FOLDS = "folds"  # the answer
FLOATS = field(1, whole(1, 1))  # a TypeProto: a tensor of float32, of any shape


def side_by_side(model: bytes, name: str) -> bytes:
    """The graph of a file of this name."""

    def change(of: int, content: memoryview) -> list[bytes] | None:
        return [field(OUTPUT, field(1, FOLDS.encode()) + field(2, FLOATS))] if of == OUTPUT else None

    found = changed(model, name, change, after=[field(NODE, node("Concat", of_folds(model), FOLDS, axis=1))])
    assert found is not None  # every graph has an output
    return found


def computing_all(graph: Graph) -> Graph:
    """The graph without what makes a mean."""
    last = Node("Concat", _of_folds(graph.nodes), FOLDS, {"axis": 1})
    wanted, kept = set(last.inputs), [last]
    for one in reversed(graph.nodes):
        if one.output in wanted:
            wanted |= set(one.inputs)
            kept.insert(0, one)
    return replace(graph, nodes=kept, target=FOLDS)


def of_folds(model: bytes | memoryview) -> list[str]:
    """Names of the logits of each fold, in order."""
    return _of_folds([as_node(one) for one in fields(fields(model)[7][0])[NODE]])


def _of_folds(nodes: list[Node]) -> list[str]:
    """They come of activations that change nothing: export.graph.Mean."""
    return [one.output for one in nodes if one.operator == "LeakyRelu" and one.attributes.get("alpha") == 1]
