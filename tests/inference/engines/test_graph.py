"""Graphs are read as by the package onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.card import WEIGHTS_FILE
from inference.engines.graph import read_graph
from inference.errors import WeightsError
from tests.conftest import ROOT

GRAPHS = [*(ROOT / "tests" / "networks").rglob("*.onnx"), *(ROOT / "weights").rglob("*.onnx")]


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_as_by_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    expected, found = onnx.load(path).graph, read_graph(path, [WEIGHTS_FILE])
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
            read_graph(tmp_path / "model.onnx", [])


@pytest.mark.parametrize("where", ["../weights.bin", "/weights.bin", "sub/weights.bin", "other.bin", "..", ""])
def test_weights_are_read_from_the_files_on_the_card_alone(where: str, tmp_path: Path) -> None:
    """A graph of one value, which lies beside it."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content

    def saved(location: str) -> Path:
        entries = {"location": location, "length": "4"}
        beside = b"".join(
            field(13, field(1, key.encode()) + field(2, value.encode())) for key, value in entries.items()
        )
        # dims, data_type, name, external_data, data_location
        tensor = b"\x08\x01" + b"\x10\x01" + field(8, b"w") + beside + b"\x70\x01"
        value = field(1, b"x")
        (folder / "model.onnx").write_bytes(field(7, field(5, tensor) + field(11, value) + field(12, value)))
        return folder / "model.onnx"

    folder = tmp_path / "network"
    (folder / "sub").mkdir(parents=True)
    for file in (
        tmp_path / "weights.bin",
        folder / "weights.bin",
        folder / "sub" / "weights.bin",
        folder / "other.bin",
    ):
        file.write_bytes(np.float32(7).tobytes())
    assert read_graph(saved("weights.bin"), ["weights.bin"]).weights["w"] == [7]
    where = str(tmp_path) + where if where.startswith("/") else where
    with pytest.raises(WeightsError, match="has weights in .*not on the network"):
        read_graph(saved(where), ["weights.bin"])
    if "/" in where:  # not even where the card says so
        with pytest.raises(WeightsError, match="has weights in .*not on the network"):
            read_graph(saved(where), [where])
