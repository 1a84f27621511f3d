"""A network as ONNX graphs, in float32 and in float16."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from ..card import FORMS, WEIGHTS_FILE
from ..errors import WeightsError

OPSET = 18
# Operators whose meaning does not depend on the size of a batch or window: all that the architectures become.
SIZE_FREE = {"Conv", "ConvTranspose", "InstanceNormalization", "LeakyRelu", "Relu", "Concat", "Add", "AveragePool",
             "Softmax"}  # fmt: skip


def to_onnx(network: torch.nn.Module, patch: list[int], inputs: int = 1) -> onnx.ModelProto:
    """The network as an ONNX graph with free batch and spatial sizes: image (b,c,z,y,x) -> logits (b,k,z,y,x).

    inputs  channels of the image
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(1, inputs, *patch),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter notes stack traces, which hold paths of the exporting machine, at each node.
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del item.metadata_props[:]
        item.doc_string = ""
    # A graph of these operators alone takes any size. (Exporting with free sizes fails for
    # ResidualEncoderUNet: its average pooling makes sizes that torch.export cannot solve for.)
    if fixed := sorted({node.op_type for node in model.graph.node} - SIZE_FREE):
        raise WeightsError(f"the exported graph has {', '.join(fixed)}, which may fix the size of its input")
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in ((0, "batch"), (2, "z"), (3, "y"), (4, "x")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    onnx.checker.check_model(model, full_check=True)
    return model


def without_head(model: onnx.ModelProto) -> np.ndarray | None:
    """Take the last layer off a graph if it has more outputs than inputs: see grids.decode.

    Returns it, (k, c + 1) float32 of weights and a column of biases; None where the graph stays as it is.
    """
    graph = model.graph
    last = graph.node[-1]
    values = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    own = [name for name in last.input if name in values]
    if last.op_type != "Conv" or list(last.output) != [graph.output[0].name] or len(own) + 1 != len(last.input):
        return None
    weights = values[own[0]]
    labels, features, *kernel = weights.shape
    if kernel != [1, 1, 1] or labels <= features + 1:
        return None
    biases = values[own[1]] if len(own) > 1 else np.zeros(labels, np.float32)
    graph.node.remove(last)
    rest = [weight for weight in graph.initializer if any(weight.name in node.input for node in graph.node)]
    del graph.initializer[:]
    graph.initializer.extend(rest)
    for node in graph.node:
        node.output[:] = ["features" if name == last.input[0] else name for name in node.output]
        node.input[:] = ["features" if name == last.input[0] else name for name in node.input]
    graph.output[0].name = "features"
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = features
    onnx.checker.check_model(model, full_check=True)
    return np.column_stack([weights.reshape(labels, features), biases]).astype(np.float32)


def save_graphs(model: onnx.ModelProto, folder: Path) -> dict[str, list[str]]:
    """Write the float32 graph and the float16 one; returns precision -> the names of its files, the graph first.

    If float16 holds the weights exactly, they lie once beside both graphs: 11 MB instead of 34.
    """
    half = with_half_weights(model)
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(half, full_check=True)
    forms = {precision: list(FORMS[precision]) for precision in ("f32", "f16")}
    if exact := _same_weights(model, half):
        model = with_half_weights(model)
        _cast_weights(model)
        onnx.checker.check_model(model, full_check=True)
    for graph, (name, *_) in zip((model, half), forms.values(), strict=True):
        # Without `exact` the weights stay inside. The second graph writes the same bytes to the same file.
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)
        onnx.save(graph, folder / name, save_as_external_data=exact, location=WEIGHTS_FILE, size_threshold=0)
    if exact:  # onnx lets only its owner read it
        (folder / WEIGHTS_FILE).chmod((folder / FORMS["f32"][0]).stat().st_mode)
    return {precision: names + [WEIGHTS_FILE] * exact for precision, names in forms.items()}


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph with float16 weights."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for weight in half.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    return half


def _same_weights(model: onnx.ModelProto, half: onnx.ModelProto) -> bool:
    pairs: Sequence[Any] = list(zip(model.graph.initializer, half.graph.initializer, strict=True))
    return all(np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(two)) for one, two in pairs)


def _cast_weights(model: onnx.ModelProto) -> None:
    """Let a float32 graph with float16 weights cast them before use: engines do that once, when they load it."""
    names = {weight.name: f"{weight.name}_f32" for weight in model.graph.initializer}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    casts = [onnx.helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT) for name, cast in names.items()]
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
