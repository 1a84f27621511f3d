"""Export of tiny result folders: what the card says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("nnunetv2")

from inference.card import read_card  # noqa: E402
from inference.errors import WeightsError  # noqa: E402
from tests.conftest import TINY_PATCH, write_model  # noqa: E402
from training import export as exporter  # noqa: E402


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_the_card_says(tiny_weights: Path) -> None:
    card = read_card(tiny_weights / "tumor")
    assert card.patch == tuple(TINY_PATCH)
    assert card.window_multiple is None  # it has instance norms
    assert card.spacing == (4.0, 3.0, 3.0)
    assert card.orientation == "LPS"
    assert card.clip == (-160.0, 240.0) and (card.mean, card.std) == (80.0, 70.0)
    assert [(label.value, label.name) for label in card.labels] == [(0, "background"), (14, "organ_1")]
    assert card.trained_on == "random weights"
    assert set(card.files) == {"model.onnx", "model_f16.onnx"}
    for name in card.files:
        assert card.file(name).is_file()


def test_one_file_without_traces_of_the_machine(tiny_weights: Path) -> None:
    folder = tiny_weights / "organ"
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.onnx", "model_f16.onnx"]
    assert b"/site-packages/" not in (folder / "model.onnx").read_bytes()
    (image,) = onnx.load(folder / "model.onnx").graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 1, "z", "y", "x"]


def test_any_batch_and_size_equals_the_module(tiny_model: Path, tiny_weights: Path) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = json.loads((tiny_model / "plans.json").read_text())["configurations"]["tiny"]["architecture"]
    network = get_network_from_plans(
        plans["network_class_name"], plans["arch_kwargs"], plans["_kw_requires_import"], 1, 5, deep_supervision=False
    )
    stored = torch.load(tiny_model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    network.load_state_dict(stored["network_weights"])
    from onnx.reference import ReferenceEvaluator

    batch = np.random.default_rng(0).normal(size=(2, 1, 4, 24, 16)).astype(np.float32)
    (logits,) = ReferenceEvaluator(str(tiny_weights / "organ" / "model.onnx")).run(None, {"image": batch})
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3 * np.abs(expected).max())


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
