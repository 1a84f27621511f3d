"""Our labels beside those of nnU-Net's own predictor, for result folders of all kinds. One process for all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from benchmark.parity import agreement
from inference.card_file import read_card
from inference.cards import digests
from inference.engines.choose import choose, load
from inference.errors import WeightsError
from inference.export import graph
from inference.export.back import result_folder
from inference.export.convert import export
from inference.given import scan_of
from inference.grids.decode import averaged
from inference.pack import pack
from inference.predictor import Predictor
from tests.made.networks import write_model
from tests.made.nnunet import nnunet_of

SPACING = (3.0, 2.0, 2.0)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_processes")]


def theirs(model: Path, voxels: np.ndarray, folds: Any = (0,), *, tta: bool = False, **more: Any) -> np.ndarray:
    """nnU-Net's labels of a scan."""
    image = voxels[None].astype(np.float32)
    predictor = nnunet_of(model, folds, tta=tta)
    labels: np.ndarray = predictor.predict_single_npy_array(image, {"spacing": list(SPACING)}, **more)
    return labels


def ours(weights: Path, voxels: np.ndarray, **options: Any) -> np.ndarray:
    return Predictor(weights=weights, plan="dense", precision="f32", device="cpu", **options)(voxels, SPACING, "LPS")


def same(mine: np.ndarray, other: np.ndarray) -> None:
    """Random weights leave near-ties, which count for much in small labels."""
    found = agreement(mine, np.asarray(other, np.uint8))
    large = [value for value in found.dice if (mine == value).sum() > mine.size / 100]
    assert large and len(found.dice) >= 2, "something was found, so that there is something to compare"
    assert found.voxels >= 0.9995 and all(found.dice[value] >= 0.995 for value in large), found


@pytest.mark.parametrize(("fold", "folds"), [("0,2", (0, 2)), ("all", (0, 1, 2))])
def test_folds_are_averaged(fold: str, folds: tuple[int, ...], blob: np.ndarray, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", folds="012")
    export(model, tmp_path / "w" / "net", fold=fold)
    expected = theirs(model, blob, folds)
    same(ours(tmp_path / "w", blob), expected)
    assert agreement(np.asarray(theirs(model, blob), np.uint8), np.asarray(expected, np.uint8)).voxels < 0.99


def test_every_engine_answers_with_all_folds_in_float32(tmp_path: Path, blob: np.ndarray) -> None:
    """Side by side, so that each is rounded as nnU-Net rounds it; their mean where windows are not nnU-Net's."""
    model = write_model(tmp_path / "m", folds="012")
    export(model, tmp_path / "w" / "net", fold="all")
    card, patch = read_card(tmp_path / "w" / "net"), blob[None, None, :8, :16, :24].astype(np.float32) / 100
    folds = []
    for fold in "012":
        export(model, tmp_path / fold, fold=fold)
        folds.append(load(choose("cpu", "torch", "f32"), read_card(tmp_path / fold), 1)(patch))
    for engine in ("openvino", "onnxruntime", "torch"):
        network = load(choose("cpu", engine, "f32"), card, 1)
        np.testing.assert_allclose(network(patch), np.concatenate(folds, axis=1), atol=1e-4)
        np.testing.assert_allclose(averaged(network, card)(patch), np.mean(folds, axis=0), atol=1e-4)
    body, mean = (
        Predictor(weights=weights, plan="body", precision="f32", device="cpu")(blob, SPACING, "LPS")
        for weights in (tmp_path / "w", with_one_fold(tmp_path))
    )
    assert agreement(body, mean).voxels > 0.999


def with_one_fold(folder: Path) -> Path:
    """The network with a card that says nothing of folds, so that its graph is taken as it is."""
    shutil.copytree(folder / "w", folder / "one")
    card = folder / "one" / "net" / "card.json"
    card.write_text(
        json.dumps({name: value for name, value in json.loads(card.read_text()).items() if name != "folds"})
    )
    return folder / "one"


def test_weights_too_large_for_one_file_lie_beside_the_graph(
    blob: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "m", folds="01")
    export(model, tmp_path / "inside" / "net", fold="all")
    monkeypatch.setattr(graph, "MOST_INSIDE", 1000)
    export(model, tmp_path / "beside" / "net", fold="all")
    assert (tmp_path / "beside" / "net" / "model.onnx").stat().st_size < 30_000
    for engine in ("openvino", "onnxruntime", "torch"):
        inside, beside = (ours(tmp_path / name, blob, engine=engine) for name in ("inside", "beside"))
        assert np.array_equal(inside, beside)


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_batch_norms_that_only_the_trainer_knows_of(architecture: str, blob: np.ndarray, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", trainer="nnUNetTrainerBN", architecture=architecture)
    export(model, tmp_path / "w" / "net")
    assert read_card(tmp_path / "w" / "net").window_multiple == (2, 4, 4)  # folded into convolutions
    same(ours(tmp_path / "w", blob), theirs(model, blob))
    if architecture == "PlainConvUNet":
        result_folder(tmp_path / "w" / "net", tmp_path / "back")
        same(ours(tmp_path / "w", blob), theirs(tmp_path / "back", blob))
    else:
        with pytest.raises(WeightsError, match="into which a batch norm was folded"):
            result_folder(tmp_path / "w" / "net", tmp_path / "back")


@pytest.mark.parametrize("axes", [(0, 1, 2), (1,)])
def test_mirroring(axes: tuple[int, ...], blob: np.ndarray, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", mirror_axes=axes, transpose=(1, 0, 2), seed=4)
    export(model, tmp_path / "w" / "net")
    blob = blob[:, 8:-8, 8:-8]
    expected = theirs(model, blob, tta=True)
    same(ours(tmp_path / "w", blob, tta=True), expected)
    assert agreement(ours(tmp_path / "w", blob), np.asarray(expected, np.uint8)).voxels < 0.99


def test_mirroring_that_no_axis_is_stored_for_is_refused(tmp_path: Path, blob: np.ndarray) -> None:
    export(write_model(tmp_path / "m", mirror_axes=None, trainer="nnUNetTrainerNoMirroring"), tmp_path / "w" / "net")
    with pytest.raises(WeightsError, match="--tta was asked for, but network net stores no axis"):
        Predictor(weights=tmp_path / "w", tta=True)


@pytest.mark.parametrize(
    ("architecture", "transpose", "spacing"),
    [
        ("PlainConvUNet", (0, 1, 2), (3.0, 3.0)),
        ("PlainConvUNet", (2, 0, 1), (1.5, 2.5)),
        ("ResidualEncoderUNet", (0, 1, 2), (2.5, 2.0)),
    ],
)
def test_2d(architecture: str, transpose: Any, spacing: Any, blob: np.ndarray, tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m", architecture=architecture, transpose=transpose, spacing=spacing, mirror_axes=(0, 1)
    )
    export(model, tmp_path / "w" / "net")
    card = read_card(tmp_path / "w" / "net")
    assert card.spacing[0] is None and card.patch[0] == 1 and card.mirror_axes == (1, 2)
    tta = architecture == "ResidualEncoderUNet"
    expected = theirs(model, blob, tta=tta)
    same(ours(tmp_path / "w", blob, tta=tta), expected)
    result_folder(tmp_path / "w" / "net", tmp_path / "back")
    again = theirs(tmp_path / "back", blob, tta=tta)
    assert np.array_equal(again, expected)


@pytest.mark.parametrize(
    ("coarse", "fine", "transpose"),
    [((6.0, 5.0, 5.0), (4.0, 3.0, 3.0), (0, 1, 2)), ((5.0, 4.0, 4.0), (6.0, 1.7, 1.9), (2, 1, 0))],
)
def test_a_cascade(coarse: Any, fine: Any, transpose: Any, blob: np.ndarray, tmp_path: Path) -> None:
    blob = blob[:, 8:-8, 8:-8]
    first = write_model(tmp_path / "first", name="3d_lowres", spacing=coarse, transpose=transpose, seed=4)
    model = write_model(tmp_path / "m", spacing=fine, transpose=transpose, previous="3d_lowres", seed=2)
    export(model, tmp_path / "w" / "net", previous=first, values={"organ_2": 9})
    predictor = Predictor(weights=tmp_path / "w", plan="dense", precision="f32", device="cpu")
    assert [card.name for card in predictor.cards] == ["net"]  # the earlier one is not run for its own labels
    labels, record = predictor.segment(scan_of(blob, SPACING, "LPS", None))
    assert list(record.windows) == ["net_3d_lowres", "net"]
    assert digests(predictor.cards).keys() == {"net_3d_lowres", "net"}

    pack(tmp_path / "w", tmp_path / "w.zip")
    assert digests(Predictor(weights=tmp_path / "w.zip").cards) == digests(predictor.cards)

    # Both get our earlier labels: a network of random weights makes much of the few voxels in which they differ.
    before = ours(tmp_path / "w", blob, networks="net_3d_lowres").astype(np.int16)
    before[before == 9] = 2
    same(before, theirs(first, blob))
    with_labels, without = (
        np.asarray(theirs(model, blob, segmentation_previous_stage=given[None]))
        for given in (before, np.zeros_like(before))
    )
    same(np.where(labels == 9, 2, labels), with_labels)
    assert (with_labels != without).mean() > 0.01


REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "middle": 3, "ignore": 4},
    "regions_class_order": [2, 3, 1],
}


def test_regions_near_0_are_those_of_sums_in_float16(blob: np.ndarray, tmp_path: Path) -> None:
    """Of float32 12 voxels of random weights would differ; where logits cancel, what is left is the processor's."""
    blob = blob[:, 8:-8, 8:-8]
    model = write_model(tmp_path / "m", seed=5, dataset=REGIONS)
    export(model, tmp_path / "w" / "net")
    expected = theirs(model, blob)
    assert len(np.unique(expected)) == 4
    assert (ours(tmp_path / "w", blob) != expected).sum() <= 2


TORCH = {"is_seg": True, "force_separate_z": False, "memefficient_seg_resampling": False}


@pytest.mark.parametrize("resampling", ["spline", "torch"])
def test_a_cascade_of_regions(resampling: str, blob: np.ndarray, tmp_path: Path) -> None:
    """The inputs of its later stage are the labels that regions are made of, whichever a region writes."""
    blob = blob[:, 8:-8, 8:-8]
    changes: dict[str, Any] = {"dataset": REGIONS}
    if resampling == "torch":
        changes["configuration"] = {"resampling_fn_seg": "resample_torch_fornnunet", "resampling_fn_seg_kwargs": TORCH}
    first = write_model(tmp_path / "first", name="3d_lowres", spacing=(6.0, 5.0, 5.0), seed=4, **changes)
    model = write_model(tmp_path / "m", spacing=(3.5, 3.0, 2.3), previous="3d_lowres", seed=2, **changes)
    export(model, tmp_path / "w" / "net", previous=first, values={"core": 9})  # which writes 3
    before = ours(tmp_path / "w", blob, networks="net_3d_lowres").astype(np.int16)
    before[before == 9] = 3
    same(before, theirs(first, blob))
    expected = np.asarray(theirs(model, blob, segmentation_previous_stage=before[None]))
    found = ours(tmp_path / "w", blob, networks="net")
    same(np.where(found == 9, 3, found), expected)


BATCHES_OF_ONE = {
    "norm_op": "torch.nn.BatchNorm3d",
    "norm_op_kwargs": {"eps": 1e-4, "track_running_stats": False},
}
BLOCK = "dynamic_network_architectures.building_blocks.residual."


@pytest.mark.parametrize(
    ("architecture", "trainer", "arch_kwargs"),
    [
        ("ResidualEncoderUNet", "nnUNetTrainer", {"block": f"{BLOCK}BottleneckD", "bottleneck_channels": [3, 4, 4]}),
        ("ResidualEncoderUNet", "nnUNetTrainer", {"block": f"{BLOCK}BasicBlockD", "stem_channels": 6}),
        ("PlainConvUNet", "nnUNetTrainerBN", {"nonlin_first": True}),  # norms that no convolution takes in
        ("PlainConvUNet", "nnUNetTrainerBN", {"norm_op_kwargs": {"eps": 0.1, "affine": True}}),  # it has its own
        ("PlainConvUNet", "nnUNetTrainer", {"norm_op_kwargs": {"eps": 0.1, "track_running_stats": True}}),
        ("PlainConvUNet", "nnUNetTrainer", BATCHES_OF_ONE),
        ("PlainConvUNet", "nnUNetTrainerBN", BATCHES_OF_ONE),  # it has its own
    ],
)
def test_arguments_of_networks_that_few_plans_have(
    architecture: str, trainer: str, arch_kwargs: dict[str, Any], blob: np.ndarray, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m", architecture=architecture, trainer=trainer, arch_kwargs=arch_kwargs)
    export(model, tmp_path / "w" / "net")
    expected = theirs(model, blob)
    for engine in ("openvino", "torch"):
        same(ours(tmp_path / "w", blob, engine=engine), expected)
    if "nonlin_first" in arch_kwargs:
        with pytest.raises(WeightsError, match="its batch norms follow nonlinearities"):
            result_folder(tmp_path / "w" / "net", tmp_path / "back")


def test_a_cascade_without_its_earlier_stage_is_refused(tmp_path: Path) -> None:
    plain, other = write_model(tmp_path / "plain"), write_model(tmp_path / "other", name="3d_lowres", labels=3)
    model = write_model(tmp_path / "m", previous="3d_lowres")
    for previous, cause in (
        (None, "is the later stage of a cascade: give the folder of the earlier one, configuration 3d_lowres, with --"),
        (plain, "plain has the configuration 'tiny', the cascade in .*m comes after '3d_lowres'"),
        (other, "other has other labels than .*m"),
    ):
        with pytest.raises(WeightsError, match=cause):
            export(model, tmp_path / "w" / "net", previous=previous)
    with pytest.raises(WeightsError, match="is not a later stage of a cascade"):
        export(plain, tmp_path / "w" / "net", previous=other)
    assert not (tmp_path / "w").exists()
