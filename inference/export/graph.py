"""A network as ONNX graphs, in float32 and in float16."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from ..card import FORMS, OWN_WEIGHTS, WEIGHTS_FILE
from ..errors import WeightsError

OPSET = 18
MOST_INSIDE = 2**31 - 2**24  # bytes of weights that an ONNX file may hold itself: it ends at 2 GiB, graph included
# Operators whose meaning does not depend on the size of a batch or window: all that the architectures become. A batch
# norm is one of them only after a nonlinearity (nonlin_first): PyTorch's exporter folds others into the convolution
# before them.
SIZE_FREE = {
    "Conv", "ConvTranspose", "InstanceNormalization", "BatchNormalization", "LeakyRelu", "Relu", "Concat", "Add",
    "AveragePool", "Mul", "Softmax",
}  # fmt: skip


class Mean(torch.nn.Module):
    """Networks side by side: the mean of their logits.

    Engines run one after the other, so that activations take the memory of one, and the logits of all are held. For
    OpenVINO that takes the activation of slope 1, which changes nothing: it fuses a bare sum into the last layers, and
    runs these, with their inputs held, after everything else.
    """

    def __init__(self, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: Any = sum(torch.nn.functional.leaky_relu(network(image), 1.0) for network in self.networks)
        return logits * (1 / len(self.networks))


def to_onnx(network: torch.nn.Module, patch: list[int], inputs: int) -> onnx.ModelProto:
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
    return np.column_stack([weights.reshape(labels, features), biases]).astype(np.float32)


def activations(model: onnx.ModelProto, patch: Sequence[int]) -> float:
    """Numbers that a graph holds at once for each voxel of a window, where nothing is held longer than until its last
    reader is done: at the step at which they are most."""
    sized = without_weights(model)
    for weight in model.graph.initializer:  # what is told of shapes is at most 2 GB, the weights of five folds more
        sized.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    image = sized.graph.input[0]
    for value in (image, *sized.graph.output):
        for axis, size in zip((0, 2, 3, 4), (1, *patch), strict=True):
            value.type.tensor_type.shape.dim[axis].dim_value = size
    graph = onnx.shape_inference.infer_shapes(sized).graph
    sizes = {
        value.name: prod(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    last = {name: step for step, node in enumerate(graph.node) for name in node.input}
    held, most = {graph.input[0].name}, 0
    for step, node in enumerate(graph.node):
        held |= set(node.output)
        most = max(most, sum(sizes[name] for name in held))
        held = {name for name in held if last.get(name, len(graph.node)) > step}
    return round(most / prod(patch), 1)


def save_graphs(model: onnx.ModelProto, folder: Path) -> dict[str, list[str]]:
    """Write the float32 graph and the float16 one; returns precision -> the names of its files, the graph first.

    If float16 holds the weights exactly, they lie once beside both graphs: 11 MB instead of 34. Other weights lie
    beside their graph only where they are too large to be inside.
    """
    half = with_half_weights(model)
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    forms = {precision: list(FORMS[precision]) for precision in ("f32", "f16")}
    if exact := _same_weights(model, half):
        model = with_half_weights(model)
        _cast_weights(model)
    for graph, names in zip((model, half), forms.values(), strict=True):
        beside = WEIGHTS_FILE if exact else OWN_WEIGHTS[names[0]]
        outside = exact or sum(len(weight.raw_data) for weight in graph.graph.initializer) > MOST_INSIDE
        # The second graph writes the same bytes to the same file.
        (folder / beside).unlink(missing_ok=True)
        onnx.save(graph, folder / names[0], save_as_external_data=outside, location=beside, size_threshold=0)
        onnx.checker.check_model(folder / names[0], full_check=True)
        if outside:
            names.append(beside)
            (folder / beside).chmod((folder / names[0]).stat().st_mode)  # onnx lets only its owner read it
    return forms


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph with float16 weights."""
    half = without_weights(model)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight).astype(np.float16)
        half.graph.initializer.append(numpy_helper.from_array(values, weight.name))
    return half


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph alone."""
    graph = model.graph
    bare = onnx.helper.make_graph(graph.node, graph.name, graph.input, graph.output)
    bare.doc_string = graph.doc_string  # empty and there, as `to_onnx` left it
    known = {name: getattr(model, name) for name in ("ir_version", "producer_name", "producer_version")}
    return onnx.helper.make_model(bare, opset_imports=model.opset_import, **known)


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
