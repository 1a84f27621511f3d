"""OpenVINO: the fastest engine on a CPU."""

from __future__ import annotations

import sys

# OpenVINO reports its import to Google Analytics where this package is installed, as it is with the wheel.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import numpy as np
import openvino as ov
from openvino import opset13 as op

from ..arrays import Array, Network
from ..card import Card
from ..machine import computes
from .folds import of_folds


def load(card: Card, *, precision: str, device: str, threads: int) -> Network:
    """Read the float32 graph, or for int8 what export.quantize made of it.

    It is compiled for the shape of the first window, and again when that changes: a fixed shape lets the plugin plan
    its memory and blocking.
    """
    core = ov.Core()
    if precision == "int8":
        model = core.read_model(card.form("int8"))
        precision = "bf16" if computes("bf16") else "f32"  # of what is not int8: the first and last layers
    else:
        path = card.form("f32")
        model = core.read_model(path)
        if card.apart(precision):
            model = apart(model, of_folds(np.memmap(path, mode="r").data))  # of whose weights nothing is read
        if precision == "f32":
            sum_norms_by_rows(model)
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # each process would pin to the first processors, and all wait for these
    }
    compiled: dict[tuple[int, ...], tuple[ov.InferRequest, Array]] = {}

    def run(batch: Array) -> Array:
        if batch.shape not in compiled:
            compiled.clear()  # one at a time: each holds the memory of its windows
            model.reshape(batch.shape)
            request = core.compile_model(model, device.upper(), settings).create_infer_request()
            compiled[batch.shape] = request, outputs_of(request)
        request, answers = compiled[batch.shape]
        request.infer({0: batch}, share_inputs=True, share_outputs=True)  # else the answer is copied
        return beside(answers)

    return run


def outputs_of(request: ov.InferRequest) -> Array:
    """(n, b, k, z, y, x), into which a request writes its n outputs."""
    outputs = request.output_tensors
    answers = np.empty((len(outputs), *outputs[0].shape), np.float32)
    for index, part in enumerate(answers):
        request.set_output_tensor(index, ov.Tensor(part, shared_memory=True))
    return answers


def beside(answers: Array) -> Array:
    """(b, n * k, z, y, x) of (n, b, k, z, y, x): of one output, or of a batch of one, without a copy."""
    return np.moveaxis(answers, 0, 1).reshape(answers.shape[1], -1, *answers.shape[3:])


def apart(model: ov.Model, names: list[str]) -> ov.Model:
    """The model with the logits of each of its folds, which have these names, as outputs."""
    outputs = {name: output for one in model.get_ops() for output in one.outputs() for name in output.get_names()}
    return ov.Model([op.result(outputs[name]) for name in names], model.get_parameters())


def sum_norms_by_rows(model: ov.Model) -> None:
    """Replace the instance norms of a float32 model by ones that sum up each row of voxels by itself first.

    The plugin's own adds up a whole channel number by number. Of 64 x 192 x 192 voxels small ones are lost beside the
    sum, and what comes out is wrong by 2e-3, a thousand times more than it need be. bfloat16 is no better anyway.
    """
    for norm in model.get_ordered_ops():
        if norm.get_type_name() == "MVN":
            given = norm.input(0).get_source_output()
            apart = op.subtract(given, _mean(given))
            variance = _mean(op.multiply(apart, apart).output(0))
            deviation = op.sqrt(op.add(variance, np.float32(norm.get_attributes()["eps"])))
            norm.output(0).replace(op.divide(apart, deviation).output(0))


def _mean(array: ov.Output) -> ov.Node:
    """Over space, (b, c, ...) -> (b, c, 1 ...): the mean of the means of rows."""
    last = array.partial_shape.rank.get_length() - 1
    # Two means that keep their axes alike would be merged into one.
    rows = op.reduce_mean(array, [last], keep_dims=False)
    return op.unsqueeze(op.reduce_mean(rows, np.arange(2, last), keep_dims=True), [last])
