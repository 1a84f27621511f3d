"""PyTorch: the reference engine. It runs the same ONNX graph with PyTorch's own operators."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..arrays import Array, Network
from ..card import Card
from ..errors import WeightsError
from .folds import computing_all
from .graph import read_graph

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def exactly(device: str, precision: str) -> AbstractContextManager[None]:
    """Float32 is float32 while this is open: by default convolutions on a GPU round it to 10 bits."""
    if device == "cpu" or precision != "f32":
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)


def load(card: Card, *, precision: str, device: str, threads: int) -> Network:
    """Read the float32 graph for windows of any shape that its strides divide.

    Raises WeightsError where the graph has an operator that no supported U-Net has.
    """
    torch.set_num_threads(threads)
    if device == "cuda":  # the library that multiplies matrices takes its memory while there is still a choice
        one = torch.ones((1, 1), device=device)
        torch.matmul(one, one)
    path = card.form("f32")
    graph = read_graph(path, card.forms.get("f32", ()))
    if card.apart(precision):
        graph = computing_all(graph)
    weights = {name: torch.from_numpy(values).to(device) for name, values in graph.weights.items()}
    casts = [node for node in graph.nodes if node.operator == "Cast" and node.inputs[0] in weights]
    weights |= {node.output: weights[node.inputs[0]].float() for node in casts}  # stored as float16
    computing = [node for node in graph.nodes if node not in casts]
    for node in computing:
        if node.operator not in OPERATORS:
            raise WeightsError(f"{path} has the operator {node.operator}, unknown to engine torch")
    nodes = [(OPERATORS[node.operator], node.inputs, node.output, node.attributes) for node in computing]
    last_use = {name: index for index, (_, inputs, _, _) in enumerate(nodes) for name in inputs}
    source, target = graph.source, graph.target
    dtype = DTYPES[precision]

    @torch.no_grad()  # not inference_mode, whose tensors nobody may change
    def answer(batch: Array) -> Any:
        values = {source: torch.as_tensor(batch, device=device)}
        with exactly(device, precision), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            for index, (operator, inputs, output, attributes) in enumerate(nodes):
                values[output] = operator(*(values.get(i, weights.get(i)) for i in inputs), **attributes)
                for name in inputs:  # an activation is freed once nothing will read it
                    if last_use[name] == index:
                        values.pop(name, None)
        return values[target].float()

    def run(batch: Array) -> Array:
        try:
            logits = answer(batch)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise
        return logits.cpu().numpy() if isinstance(batch, np.ndarray) else logits

    return run


def _symmetric(pads: list[int] | None) -> list[int]:
    """ONNX's (begin..., end...) as PyTorch's one number an axis."""
    if not pads:
        return [0, 0, 0]
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise WeightsError(f"padding {pads} differs at the two ends of an axis: unknown to engine torch")
    return list(pads[:half])


def _conv(x: Any, w: Any, b: Any = None, *, strides: Any = 1, pads: Any = None, dilations: Any = 1, group: int = 1,
          **_: Any) -> Any:  # fmt: skip
    return F.conv3d(x, w, b, strides, _symmetric(pads), dilations, group)


def _conv_transpose(x: Any, w: Any, b: Any = None, *, strides: Any = 1, pads: Any = None, group: int = 1,
                    **_: Any) -> Any:  # fmt: skip
    return F.conv_transpose3d(x, w, b, strides, _symmetric(pads), 0, group)


def _batch_norm(x: Any, w: Any, b: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, **_: Any) -> Any:
    return F.batch_norm(x, mean, var, w, b, eps=epsilon)


def _average_pool(x: Any, *, kernel_shape: Any, strides: Any = 1, pads: Any = None, **_: Any) -> Any:
    return F.avg_pool3d(x, kernel_shape, strides, _symmetric(pads), count_include_pad=not any(pads or []))


# Every operator of an exported network.
OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "AveragePool": _average_pool,
    "InstanceNormalization": lambda x, w, b, epsilon=1e-5: F.instance_norm(x, weight=w, bias=b, eps=epsilon),
    "BatchNormalization": _batch_norm,
    "Relu": torch.relu,
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Concat": lambda *xs, axis: torch.cat(xs, axis),
    "Add": torch.add,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "Mul": torch.mul,
}
