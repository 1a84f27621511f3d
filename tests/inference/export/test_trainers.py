"""Checkpoints of other trainers than nnU-Net's usual one, and what lies beside folds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from inference.export.checkpoint import read_result_folder  # noqa: E402
from inference.export.convert import planned  # noqa: E402
from inference.export.notes import note  # noqa: E402
from tests.inference.export.conftest import refusal  # noqa: E402
from tests.made.networks import OLD, old_plans  # noqa: E402

CHECKPOINT = "fold_0/checkpoint_final.pth"


def trained_by(model: Path, trainer: str, *more: str) -> None:
    """Give the checkpoint another trainer, and more parameters."""
    stored = torch.load(model / CHECKPOINT, weights_only=False)
    stored["trainer_name"] = trainer
    stored["network_weights"] |= {name: torch.zeros(3) for name in more}
    torch.save(stored, model / CHECKPOINT)


@pytest.mark.parametrize(
    "trainer",
    ["nnUNetTrainerNoMirroring", "nnUNetTrainerDA5", "nnUNetTrainer_250epochs", "nnUNetTrainerDiceTopK10Loss",
     "nnUNetTrainer_LeakyReLU", "nnUNetTrainerDiffusionAug"],
)  # fmt: skip
def test_trainers_of_the_usual_networks(trainer: str, model: Path) -> None:
    trained_by(model, trainer)
    (stored,) = read_result_folder(model)
    assert planned(stored, None, {})[1]["source"]["trainer"] == trainer


def test_trainers_that_build_other_networks_are_named(model: Path) -> None:
    trained_by(model, "nnUNetTrainerUMambaBot", "mamba_layer.mamba.A_log")
    said = refusal(model)
    assert said.endswith("'mamba_layer.mamba.A_log' is only in the checkpoint; its trainer 'nnUNetTrainerUMambaBot' "
                         "may build another network")  # fmt: skip


@pytest.mark.parametrize(
    "trainer", ["nnUNetTrainerGELU", "nnUNetTrainer_ReLU", "nnUNetTrainerV2_Mish", "My_GN_Trainer"]
)
def test_trainers_whose_parameters_fit_but_mean_something_else(trainer: str, model: Path) -> None:
    trained_by(model, trainer)
    assert f"trainer {trainer!r} is not supported: by its name its network has other layers" in refusal(model)


@pytest.mark.parametrize(
    "name",
    ["dynamic_network_architectures.architectures.primus.Primus", "nnunetv2.nets.swin_unetr.SwinUNETR",
     "nnunet_mednext.MedNeXt", "mypackage.MyNet"],
)  # fmt: skip
def test_other_architectures_are_named(name: str, model: Path) -> None:
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["tiny"]["architecture"]["network_class_name"] = name
    (model / "plans.json").write_text(json.dumps(plans))
    assert f"architecture {name!r} is not one of GenericUNet, PlainConvUNet, ResidualEncoderUNet" in refusal(model)


def test_other_architectures_of_old_plans_are_named(model: Path) -> None:
    plans = old_plans(model)
    plans["configurations"]["tiny"] |= OLD | {"UNet_class_name": "UMambaBot"}
    (model / "plans.json").write_text(json.dumps(plans))
    assert "architecture 'dynamic_network_architectures.architectures.unet.UMambaBot' is not one of" in refusal(model)


def test_postprocessing_that_is_not_applied_is_said(model: Path) -> None:
    assert note(model) is None
    place = model / "crossval_results_folds_0_1_2_3_4"
    place.mkdir()
    (place / "postprocessing.pkl").write_bytes(b"\x80\x04cos\nsystem\n")  # which is never read
    assert str(note(model)).startswith(
        "crossval_results_folds_0_1_2_3_4/postprocessing.pkl is not applied, as nnUNetv2_"
    )
    functions = place / "postprocessing.json"
    functions.write_text('{"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"]}')
    assert note(model)
    functions.write_text('{"postprocessing_fns": []}')
    assert note(model) is None
