"""Graphs are read as by the package onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.engines.graph import read_graph
from inference.errors import WeightsError
from tests.conftest import ROOT

GRAPHS = [*(ROOT / "tests" / "networks").rglob("*.onnx"), *(ROOT / "weights").rglob("*.onnx")]


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_as_by_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    expected, found = onnx.load(path).graph, read_graph(path)
    assert [found.source, found.target] == [expected.input[0].name, expected.output[0].name]
    for one, other in zip(found.nodes, expected.node, strict=True):
        assert (one.operator, one.inputs, [one.output]) == (other.op_type, list(other.input), list(other.output))
        assert one.attributes == {a.name: onnx.helper.get_attribute_value(a) for a in other.attribute}
    assert list(found.weights) == [one.name for one in expected.initializer]
    for one in expected.initializer:
        values = onnx.numpy_helper.to_array(one)
        assert found.weights[one.name].dtype == values.dtype and np.array_equal(found.weights[one.name], values)


def test_a_damaged_graph(tmp_path: Path) -> None:
    whole = GRAPHS[0].read_bytes()
    for content in (b"", whole[:-9], b"\xff" * 40, whole[: len(whole) // 2]):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(WeightsError, match=r"model\.onnx is not a graph"):
            read_graph(tmp_path / "model.onnx")
