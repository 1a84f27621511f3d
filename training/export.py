"""nnU-Net v2 result folder, or a student's parameters -> model.onnx, model_f16.onnx and card.json.

    python -m training.export MODEL_FOLDER weights/organ [--fold 0] [--orientation LPS] [--value tumor=14]
    python -m training.export PARAMETERS.pt weights/unified --student near_isotropic

Takes any 3D PlainConvUNet or ResidualEncoderUNet of one CT channel with nnU-Net's default
preprocessing. Every installed engine then runs one patch; a mismatch leaves nothing behind.
If float16 holds every weight exactly, as in the students of training.train, both graphs share
one file of float16 weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from onnx import TensorProto, numpy_helper

from inference.card import FILE_NAME, FORMAT, FORMS, WEIGHTS_FILE
from inference.engines import ENGINES
from inference.errors import VisceraError, WeightsError
from training.labels import outputs_named
from training.network import count_outputs, read_state
from training.plans import STUDENTS
from training.result_folder import write_result_folder

ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")
READERS = {  # nnU-Net's reader -> orientation it turns scans to; None: as each file stores them
    "SimpleITKIO": None,
    "NibabelIO": None,
    "NibabelIOWithReorient": "RAS",
}
RESAMPLING = "resample_data_or_seg_to_shape"
LARGEST_DIFFERENCE = 1e-3  # of the largest logit: f32 engines differ by the order of their sums, about 1e-5
OPSET = 18
# Operators whose meaning does not depend on the size of a batch or window: all that both architectures become.
SIZE_FREE = {"Conv", "ConvTranspose", "InstanceNormalization", "LeakyRelu", "Concat", "Add", "AveragePool"}


def export(
    model_folder: Path,
    out: Path,
    *,
    fold: str | None = None,
    checkpoint: str = "checkpoint_final.pth",
    orientation: str | None = None,
    values: Mapping[str, int] | None = None,
    trained_on: str = "not stated",
) -> None:
    """Export one fold of an nnU-Net v2 result folder to the folder `out`, replacing what it held.

    orientation  of the training scans, such as "LPS"; default: what dataset.json or the reader
                 says, else scans are taken as their files store them, as nnU-Net does
    values       label name -> value in the label map, where it differs from nnU-Net's
    Raises WeightsError where the network is not one that inference can run.
    """
    plans = _json(model_folder / "plans.json")
    dataset = _json(model_folder / "dataset.json")
    weights_file = _fold_folder(model_folder, fold) / checkpoint
    stored = read_checkpoint(weights_file)
    manager = PlansManager(plans)
    configuration = manager.get_configuration(stored["init_args"]["configuration"])
    labels = _labels(dataset, values or {})
    _refuse_what_inference_cannot(configuration, dataset, plans)

    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        len(labels),
        deep_supervision=False,
    )
    state = {name.removeprefix("_orig_mod."): value for name, value in stored["network_weights"].items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{weights_file} does not fit the architecture in plans.json: {error}") from error
    network.eval()

    intensity = plans["foreground_intensity_properties_per_channel"]["0"]
    model = to_onnx(network, configuration.patch_size)
    normed = any(node.op_type == "InstanceNormalization" for node in model.graph.node)
    strides = configuration.network_arch_init_kwargs["strides"]
    card = {
        "format": FORMAT,
        "orientation": orientation or dataset.get("orientation") or READERS[plans["image_reader_writer"]],
        "axes": plans["transpose_forward"],
        "spacing": configuration.spacing,
        "patch": configuration.patch_size,
        "window_multiple": None if normed else [int(n) for n in np.prod(strides, axis=0)],
        "clip": [intensity["percentile_00_5"], intensity["percentile_99_5"]],
        "mean": intensity["mean"],
        "std": intensity["std"],
        "image_order": configuration.configuration["resampling_fn_data_kwargs"]["order"],
        "logit_order": configuration.configuration["resampling_fn_probabilities_kwargs"]["order"],
        "force_separate_z": configuration.configuration["resampling_fn_data_kwargs"]["force_separate_z"],
        "labels": labels,
        "trained_on": trained_on,
        "source": {
            "dataset": plans["dataset_name"],
            "plans": plans["plans_name"],
            "configuration": stored["init_args"]["configuration"],
            "trainer": stored["trainer_name"],
            "fold": weights_file.parent.name,
            "checkpoint_sha256": _sha256(weights_file),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary)
        patch = np.random.default_rng(0).normal(size=(1, 1, *configuration.patch_size)).astype(np.float32)
        files = save_graphs(model, folder)
        card["files"] = {name: _sha256(folder / name) for name in files}
        (folder / FILE_NAME).write_text(json.dumps(card, indent=2) + "\n")
        with torch.inference_mode():
            expected = network(torch.from_numpy(patch)).numpy()
        _check_engines(folder, patch, expected)
        out.mkdir(exist_ok=True)
        for name in (*files, FILE_NAME):  # the card last: it vouches for the others
            (folder / name).replace(out / name)
        for name in {WEIGHTS_FILE, *(name for form in FORMS.values() for name in form)} - set(files):
            (out / name).unlink(missing_ok=True)  # of the network that was here before


def export_student(weights: Path, out: Path, student: str, *, trained_on: str = "not stated") -> None:
    """Export the parameters of a student, a key of plans.STUDENTS, in a file of PyTorch, in any precision.

    Its labels follow from the number of its outputs. Raises WeightsError if these are not that student's parameters.
    """
    with tempfile.TemporaryDirectory(prefix="viscera-export-") as temporary:
        folder = Path(temporary) / weights.stem
        try:
            state = read_state(weights, student)
            write_result_folder(state, folder, outputs_named(count_outputs(state)), student)
        except (ValueError, OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise WeightsError(f"{weights} cannot be exported: {error}") from error
        export(folder, out, trained_on=trained_on)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """An nnU-Net checkpoint, read without running any code in it.

    Raises WeightsError where it is missing, damaged, or holds more than tensors and plain values.
    """
    # What nnU-Net's own checkpoints hold besides: NumPy scalars in the training log.
    rebuild_scalar = np.float64(0).__reduce__()[0]
    numpy_types: list[Any] = [rebuild_scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    try:
        with torch.serialization.safe_globals(numpy_types):
            stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing") from error
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read as a checkpoint: {error}") from error
    for key in ("network_weights", "trainer_name", "init_args"):
        if key not in stored:
            raise WeightsError(f"{path} is not a checkpoint of nnU-Net v2: {key} is missing")
    return stored


def to_onnx(network: torch.nn.Module, patch: list[int]) -> onnx.ModelProto:
    """The network as an ONNX graph with free batch and spatial sizes: image (b,1,z,y,x) -> logits (b,k,z,y,x)."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(1, 1, *patch),),
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


def save_graphs(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Write the float32 graph and the float16 one; returns the names of the files, the graphs first.

    If float16 holds the weights exactly, they lie once beside both graphs: 11 MB instead of 34.
    """
    half = with_half_weights(model)
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(half, full_check=True)
    names = [FORMS["f32"][0], FORMS["f16"][0]]
    if exact := _same_weights(model, half):
        model = with_half_weights(model)
        _cast_weights(model)
        onnx.checker.check_model(model, full_check=True)
    for graph, name in ((model, names[0]), (half, names[1])):
        # Without `exact` the weights stay inside. The second graph writes the same bytes to the same file.
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)
        onnx.save(graph, folder / name, save_as_external_data=exact, location=WEIGHTS_FILE, size_threshold=0)
    if exact:  # onnx lets only its owner read it
        (folder / WEIGHTS_FILE).chmod((folder / names[0]).stat().st_mode)
    return [*names, WEIGHTS_FILE] if exact else names


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


def _check_engines(folder: Path, patch: np.ndarray, expected: np.ndarray) -> None:
    """Run each installed engine on `patch`; raise WeightsError where one's logits are not `expected`."""
    np.save(folder / "patch.npy", patch)
    for engine in ENGINES:
        if find_spec(engine) is None:
            print(f"{engine}: not installed, not checked")
            continue
        command: list[str | Path] = [sys.executable, "-m", "training.engine_check", folder, engine, "f32"]
        done = subprocess.run([*command, folder / "patch.npy", folder / "logits.npy"], capture_output=True, text=True)
        if done.returncode != 0:
            raise WeightsError(f"engine {engine} cannot run the network: {done.stderr.strip().splitlines()[-1]}")
        logits = np.load(folder / "logits.npy")
        difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
        print(f"{engine}: largest difference from PyTorch's module {difference:.1e} of the largest logit")
        if not difference < LARGEST_DIFFERENCE:
            raise WeightsError(f"engine {engine} differs by {difference:.1e}, over {LARGEST_DIFFERENCE:.0e}")


def _refuse_what_inference_cannot(configuration: Any, dataset: dict[str, Any], plans: dict[str, Any]) -> None:
    """Raise WeightsError, naming the first thing in the plan that inference would do differently."""
    fields = configuration.configuration
    architecture = configuration.network_arch_class_name.rsplit(".", 1)[-1]
    data, logits = fields["resampling_fn_data_kwargs"], fields["resampling_fn_probabilities_kwargs"]
    checks = {
        f"architecture {architecture} is not one of {', '.join(ARCHITECTURES)}": architecture in ARCHITECTURES,
        f"{len(dataset['channel_names'])} input channels, one CT is supported": len(dataset["channel_names"]) == 1,
        f"normalisation {fields['normalization_schemes']} is not CTNormalization": fields["normalization_schemes"]
        == ["CTNormalization"],
        "a 2D configuration: 3D is supported": len(configuration.patch_size) == 3,
        "a cascade, which needs an earlier stage": configuration.previous_stage_name is None,
        "resampling functions other than nnU-Net's default": {
            fields["resampling_fn_data"],
            fields["resampling_fn_probabilities"],
        }
        == {RESAMPLING},
        "resampling orders other than 3, 1 or 0 for images, 1 or 0 for logits, 0 for a coarse axis": data["order"]
        in (0, 1, 3)
        and logits["order"] in (0, 1)
        and data["order_z"] == logits["order_z"] == 0,
        "force_separate_z that differs between images and logits": data["force_separate_z"]
        == logits["force_separate_z"],
        f"reader {plans['image_reader_writer']} is not one of {', '.join(READERS)}": plans["image_reader_writer"]
        in READERS,
        "region-based labels": all(isinstance(value, int) for value in dataset["labels"].values()),
    }
    for cause, fine in checks.items():
        if not fine:
            raise WeightsError(f"this plan has {cause}" if not cause.startswith("resampling") else f"it has {cause}")


def _labels(dataset: dict[str, Any], values: Mapping[str, int]) -> list[dict[str, Any]]:
    """One entry a channel, in order; `ignore` has no channel."""
    named = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    if unknown := set(values) - set(named):
        raise WeightsError(f"label {sorted(unknown)[0]!r} is not one of {', '.join(named)}")
    labels = []
    for name in sorted(named, key=lambda n: named[n] if isinstance(named[n], int) else 0):
        value = values.get(name, named[name])
        if isinstance(value, int) and not 0 <= value <= 255:
            raise WeightsError(f"label {name} has value {value}, which a uint8 label map cannot hold")
        labels.append({"value": value, "name": name, "one_piece": name in dataset.get("one_piece", ())})
    return labels


def _fold_folder(model_folder: Path, fold: str | None) -> Path:
    folds = sorted(path for path in model_folder.glob("fold_*") if path.is_dir())
    if fold is not None:
        return model_folder / f"fold_{fold}"
    if len(folds) != 1:
        names = ", ".join(path.name for path in folds) or "no fold_*"
        raise WeightsError(f"{model_folder} has {names}: choose one with --fold")
    return folds[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return fields


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _value(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    return name, int(value)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "model", type=Path, help="folder with plans.json, dataset.json and fold_*/, or a student's file"
    )
    parser.add_argument("out", type=Path, help="folder of the exported network; its name is the network's")
    parser.add_argument("--fold", help="0..4 or all, where the folder has several")
    parser.add_argument("--checkpoint", default="checkpoint_final.pth")
    parser.add_argument("--orientation", help="of all training scans, such as LPS; scans are then turned to it")
    parser.add_argument("--value", type=_value, action="append", default=[], metavar="NAME=VALUE",
                        help="value of a label in the label map, such as tumor=14")  # fmt: skip
    parser.add_argument("--student", choices=sorted(STUDENTS), default="near_isotropic",
                        help="whose parameters a file holds")  # fmt: skip
    parser.add_argument("--trained-on", default="not stated", help="a sentence for the card")
    arguments = parser.parse_args()
    model, out = arguments.model, arguments.out
    try:
        if model.is_file():
            export_student(model, out, arguments.student, trained_on=arguments.trained_on)
        else:
            export(
                model,
                out,
                fold=arguments.fold,
                checkpoint=arguments.checkpoint,
                orientation=arguments.orientation,
                values=dict(arguments.value),
                trained_on=arguments.trained_on,
            )
    except VisceraError as error:
        sys.exit(f"{error}")
    card = _json(out / FILE_NAME)
    print(f"{out}: {card['source']['parameters']:,} parameters, {len(card['labels']) - 1} labels")
    if card["orientation"] is None:
        print("The training scans' orientation is not recorded: scans are taken as their files store them, as "
              "nnU-Net does. If all were stored one way, export with --orientation (DICOM's is LPS).")  # fmt: skip


if __name__ == "__main__":
    main()
