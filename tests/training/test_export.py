"""Export of tiny result folders: what the card says, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch.nn import Module

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("nnunetv2")

from inference.card import Channel, read_card  # noqa: E402
from inference.engines.choose import choose, load  # noqa: E402
from inference.errors import WeightsError  # noqa: E402
from tests.conftest import NETWORKS  # noqa: E402
from tests.made.networks import TINY_PATCH, export_pair, write_model  # noqa: E402
from tests.training.conftest import TINY  # noqa: E402
from training import export as exporter  # noqa: E402
from training.network import build_student  # noqa: E402
from training.plans import STUDENTS  # noqa: E402
from training.unet import State  # noqa: E402


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair of tests/networks, exported now."""
    weights = tmp_path_factory.mktemp("exported")
    export_pair(weights)
    return weights


@pytest.mark.slow
def test_the_committed_networks_are_what_the_exporter_makes_of_them(exported: Path) -> None:
    """Values and not bytes: PyTorch draws random weights with other last bits on another processor."""
    for name in ("organ", "tumor"):
        card, held = (json.loads((folder / name / "card.json").read_text()) for folder in (exported, NETWORKS))
        assert sorted(card.pop("files")) == sorted(held.pop("files"))
        for one in (card, held):
            del one["source"]["checkpoint_sha256"]
        assert card == held
        for file in ("model.onnx", "model_f16.onnx"):
            made, kept = (onnx.load(folder / name / file) for folder in (exported, NETWORKS))
            weights, expected = (
                {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer} for model in (made, kept)
            )
            assert list(weights) == list(expected)
            for key, value in expected.items():
                rounding = 1e-3 if value.dtype == np.float16 else 1e-5
                np.testing.assert_allclose(weights[key], value, rtol=rounding, atol=1e-5 * np.abs(value).max())
            for model in (made, kept):
                del model.graph.initializer[:]
            assert made == kept, f"{file} has another graph: python -m tests.made.networks"


@pytest.mark.slow
def test_what_the_card_says(exported: Path) -> None:
    card = read_card(exported / "tumor")
    assert card.patch == tuple(TINY_PATCH)
    assert card.window_multiple is None  # it has instance norms
    assert card.spacing == (4.0, 3.0, 3.0)
    assert card.orientation == "LPS"
    (channel,) = card.channels
    assert channel == Channel("CT", "ct", clip=(-160.0, 240.0), mean=80.0, std=70.0)
    assert [(label.value, label.name) for label in card.labels] == [(0, "background"), (14, "organ_1")]
    assert card.trained_on == "random weights"
    assert set(card.files) == {"model.onnx", "model_f16.onnx"}
    for name in card.files:
        assert card.file(name).is_file()


@pytest.mark.slow
def test_one_file_without_traces_of_the_machine(exported: Path) -> None:
    folder = exported / "organ"
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.onnx", "model_f16.onnx"]
    assert b"/site-packages/" not in (folder / "model.onnx").read_bytes()
    (image,) = onnx.load(folder / "model.onnx").graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 1, "z", "y", "x"]


@pytest.mark.slow
def test_any_batch_and_size_equals_the_module(tiny_model: Path, exported: Path) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = json.loads((tiny_model / "plans.json").read_text())["configurations"]["tiny"]["architecture"]
    network = get_network_from_plans(
        plans["network_class_name"], plans["arch_kwargs"], plans["_kw_requires_import"], 1, 5, deep_supervision=False
    )
    stored = torch.load(tiny_model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    network.load_state_dict(stored["network_weights"])
    from onnx.reference import ReferenceEvaluator

    batch = np.random.default_rng(0).normal(size=(2, 1, 4, 24, 16)).astype(np.float32)
    (logits,) = ReferenceEvaluator(str(exported / "organ" / "model.onnx")).run(None, {"image": batch})
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
def test_a_residual_encoder_with_turned_axes(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m",
        architecture="ResidualEncoderUNet",
        spacing=(2.5, 2.0, 2.0),
        transpose=(1, 0, 2),
        orientation=None,
    )
    exporter.export(model, tmp_path / "net")
    card = read_card(tmp_path / "net")
    assert card.axes == (1, 0, 2)
    assert card.orientation is None  # not recorded: scans are taken as stored, as nnU-Net does


def refused(tmp_path: Path, cause: str) -> None:
    with pytest.raises(WeightsError, match=cause):
        exporter.export(tmp_path / "m", tmp_path / "net")
    assert not (tmp_path / "net").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]  # nothing half-written


def test_what_inference_cannot_do_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    plans, dataset = model / "plans.json", model / "dataset.json"
    good_plans, good_dataset = plans.read_text(), dataset.read_text()
    change(dataset, channel_names={"0": "CT", "1": "PET"})
    refused(tmp_path, "2 input channels")
    dataset.write_text(good_dataset)
    change(dataset, labels={"background": 0, "whole": [1, 2], "core": 2})
    refused(tmp_path, "region-based labels")
    dataset.write_text(good_dataset)
    fields = json.loads(good_plans)
    fields["configurations"]["tiny"]["normalization_schemes"] = ["ZScoreNormalization"]
    plans.write_text(json.dumps(fields))
    refused(tmp_path, "not CTNormalization")
    fields = json.loads(good_plans)
    fields["configurations"]["tiny"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    plans.write_text(json.dumps(fields))
    refused(tmp_path, "does not fit the architecture")


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    refused(tmp_path, "cannot be read as a checkpoint")
    torch.save({"some": "thing"}, checkpoint)
    refused(tmp_path, "not a checkpoint of nnU-Net v2")
    torch.save({"network_weights": Path}, checkpoint)  # a class: could run code when it is loaded
    refused(tmp_path, "cannot be read as a checkpoint")
    checkpoint.unlink()
    refused(tmp_path, "is missing")
    (model / "plans.json").unlink()
    refused(tmp_path, "plans.json cannot be read")


def test_several_folds_need_a_choice(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "fold_1").mkdir()
    refused(tmp_path, "fold_0, fold_1: choose one with --fold")


@pytest.mark.slow
def test_an_engine_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "m")
    monkeypatch.setattr(exporter, "LARGEST_DIFFERENCE", 0.0)
    refused(tmp_path, "differs by")


@pytest.mark.parametrize("value", [256, -1])
def test_values_that_no_label_map_can_hold(tmp_path: Path, value: int) -> None:
    model = write_model(tmp_path / "m")
    with pytest.raises(WeightsError, match="cannot hold"):
        exporter.export(model, tmp_path / "net", values={"organ_1": value})
    with pytest.raises(WeightsError, match="'liver' is not one of"):
        exporter.export(model, tmp_path / "net", values={"liver": 1})


@pytest.fixture(scope="module")
def student() -> Iterator[Module]:
    """A small student without norms, in the table of students as "tiny", whose weights float16 holds exactly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STUDENTS, "tiny", TINY)
        torch.manual_seed(0)
        network = build_student(15, "tiny").eval()
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()
        yield network


@pytest.fixture(scope="module")
def shared_weights(student: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student exported from its float16 parameters."""
    folder = tmp_path_factory.mktemp("student")
    half: State = {name: value.detach().half() for name, value in student.named_parameters()}
    torch.save(half, folder / "plain.pt")
    exporter.export_student(folder / "plain.pt", folder / "unified", "tiny", trained_on="nothing")
    return folder / "unified"


@pytest.mark.slow
def test_weights_that_float16_holds_lie_once_beside_both_graphs(student: Module, shared_weights: Path) -> None:
    card = read_card(shared_weights)
    assert set(card.files) == {"model.onnx", "model_f16.onnx", "weights.bin"}
    assert sorted(path.name for path in shared_weights.iterdir()) == sorted([*card.files, "card.json"])
    parameters = sum(parameter.numel() for name, parameter in student.named_parameters() if "seg_layers.0" not in name)
    assert (shared_weights / "weights.bin").stat().st_size < 1.1 * 2 * parameters
    assert (shared_weights / "model.onnx").stat().st_size < parameters
    for name in ("model.onnx", "model_f16.onnx"):
        stored = {
            weight.name: onnx.numpy_helper.to_array(weight)
            for weight in onnx.load(shared_weights / name).graph.initializer
        }
        for weight, value in stored.items():
            assert value.dtype == np.float16
            np.testing.assert_array_equal(value, student.get_parameter(weight).detach().numpy())


@pytest.mark.slow
def test_every_engine_answers_as_the_module_from_shared_weights(student: Module, shared_weights: Path) -> None:
    card = read_card(shared_weights)
    batch = np.random.default_rng(0).normal(size=(1, 1, *TINY.patch)).astype(np.float32)
    with torch.inference_mode():
        expected = student(torch.from_numpy(batch)).numpy()
    for engine in ("openvino", "onnxruntime", "torch"):
        answer = load(choose("cpu", engine, "f32", [card]), card, 1)(batch)
        np.testing.assert_allclose(answer, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_a_file_of_weights_can_be_read_by_all_who_can_read_the_graph(shared_weights: Path) -> None:
    modes = {(shared_weights / name).stat().st_mode & 0o777 for name in ("model.onnx", "weights.bin")}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {0o666 & ~umask}


@pytest.mark.slow
def test_weights_that_float16_does_not_hold_stay_in_two_graphs_and_nothing_of_before_is_left(
    student: Module, shared_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "unified"
    shutil.copytree(shared_weights, out)
    (out / "model_int8.bin").write_bytes(b"of the network before")
    odd: State = {name: value.detach() + 1e-5 for name, value in student.named_parameters()}
    torch.save(odd, tmp_path / "odd.pt")
    exporter.export_student(tmp_path / "odd.pt", out, "tiny")
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "model.onnx", "model_f16.onnx"]
    for weight in onnx.load(out / "model.onnx", load_external_data=False).graph.initializer:
        expected = student.get_parameter(weight.name).detach() + 1e-5
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), expected.numpy())
    together = sum(path.stat().st_size for path in shared_weights.iterdir())
    assert together < 0.55 * sum(path.stat().st_size for path in out.iterdir())


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"decoder.transpconvs.0.bias": torch.zeros(5)}, "decoder.transpconvs.0.bias has the shapes 5 and 16"),
        ({"encoder.stages.0.0.convs.0.norm.weight": torch.ones(8)}, "norm.weight is in only one of the two"),
        ({"decoder.seg_layers.1.bias": torch.zeros(4)}, "decoder.seg_layers.0.bias has the shapes 15 and 4"),
        ({"decoder.transpconvs.0.bias": None}, "decoder.transpconvs.0.bias is in only one of the two"),
    ],
)
def test_another_students_parameters_are_refused_in_one_sentence(
    student: Module, changed: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    state = {name: value.detach() for name, value in student.named_parameters()} | changed
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=rf"^.*odd.pt cannot be exported: .*({cause})$") as refusal:
        exporter.export_student(tmp_path / "odd.pt", tmp_path / "net", "tiny")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "net").exists()


def test_a_file_that_holds_no_parameters_is_refused_in_one_sentence(student: Module, tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "last.pt")
    (tmp_path / "text.pt").write_text("no tensors")
    for name in ("last.pt", "text.pt", "gone.pt"):
        with pytest.raises(WeightsError, match=name) as refusal:
            exporter.export_student(tmp_path / name, tmp_path / "net", "tiny")
        assert "\n" not in str(refusal.value), name
