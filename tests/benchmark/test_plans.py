"""Plans of many kinds: labels of the exported network beside nnU-Net's own, both in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from benchmark.parity import SAME_LABEL, SAME_VOXELS, agreement
from inference.export.architecture import assign
from inference.export.checkpoint import read_result_folder
from inference.export.convert import planned
from inference.export.graph import save_graphs, to_onnx
from inference.export.plan import NORMALISE
from inference.export.write import save_card
from inference.predictor import Predictor
from inference.scan import Grid, Scan
from inference.task import segment_file
from tests.made.networks import write_model
from tests.made.nnunet import nnunet_of

Both = Callable[..., tuple[np.ndarray, np.ndarray]]
SPACING = (3.0, 2.0, 2.0)
FEW = 100  # voxels

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "inner": 3},
    "regions_class_order": [1, 2, 3],
}
PLANS: dict[str, dict[str, Any]] = {
    "regions": {"dataset": REGIONS},
    "regions and a label to ignore": {
        "dataset": {
            "labels": {"ignore": 4, "inner": 3, "whole": [1, 2, 3], "core": [2, 3], "background": 0},
            "regions_class_order": [3, 1, 7],
        }
    },
    "a label to ignore": {"dataset": {"labels": {"organ": 1, "ignore": 3, "background": 0, "other": 2}}},
    "values with gaps": {"dataset": {"labels": {"far": 9, "background": 0, "near": 4, "same": 4, "one": [2]}}},
}


@pytest.fixture(scope="module")
def both(exported: Callable[..., tuple[Path, Predictor]]) -> Both:
    """Labels of an image (c, z, y, x), of the exported network and of nnU-Net's predictor, for a changed plan."""

    def labels(image: np.ndarray, spacing: tuple[float, float, float], **plan: Any) -> tuple[np.ndarray, np.ndarray]:
        model, predictor = exported(**plan)
        scan = Scan(tuple(image), Grid.of(image.shape[1:], spacing, "LPS"))
        ours, _ = predictor.segment(scan)
        theirs = nnunet_of(model).predict_single_npy_array(image.astype(np.float32), {"spacing": list(spacing)})
        return ours, np.asarray(theirs).astype(np.uint8)

    return labels


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Predictor]]:
    """A result folder of a changed plan, and a predictor with the network that it becomes."""
    graphs: dict[tuple[int, ...], Path] = {}  # networks of one seed and size have the same weights

    def export(**plan: Any) -> tuple[Path, Predictor]:
        place = tmp_path_factory.mktemp("plan")
        model = write_model(place / "model", orientation=None, **plan)
        (stored,) = read_result_folder(model)
        network, card = planned(stored, None, {})
        size = len(card["channels"]), len(card["labels"]), plan.get("seed", 0)
        if size not in graphs:
            assign(network, stored.state)
            graphs[size] = tmp_path_factory.mktemp("graphs")
            save_graphs(to_onnx(network, card["patch"], size[0]), graphs[size])
        folder = shutil.copytree(graphs[size], place / "weights" / "network")
        save_card(card, folder, {"f32": ["model.onnx"]})
        return model, Predictor(place / "weights", device="cpu", plan="dense", precision="f32")

    return export


@pytest.mark.slow
def test_labels_by_the_hundred_are_nnunets(both: Both, blob: np.ndarray) -> None:
    """Random weights of 130 channels leave many near-ties, which float16 decides."""
    ours, theirs = both(blob[None, 5:-5, 20:-20, 20:-20], (4.0, 3.0, 3.0), labels=130)
    assert agreement(ours, theirs).voxels >= 0.9999
    assert ours.max() > 100


def check(ours: np.ndarray, theirs: np.ndarray) -> None:
    found = agreement(ours, theirs)
    assert found.voxels >= SAME_VOXELS, found
    many = {value: dice for value, dice in found.dice.items() if (theirs == value).sum() > FEW}
    assert many and min(many.values()) >= SAME_LABEL, found


@pytest.fixture(scope="module")
def images(blob: np.ndarray) -> np.ndarray:
    """Two channels (c, z, y, x): CT, and one that is 0 around the body and in a hole, as MR without a skull is."""
    ct = blob[:, 8:-8, 8:-8]
    mr = np.where(ct > -500, ct + 300.0, 0.0)
    mr[10:14, 18:24, 20:30] = 0  # a hole, which nnU-Net's mask takes in
    mr[:, :, :3] = 0
    return np.stack([ct, mr * 0.37]).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("masked", "scheme"), [(False, one) for one in NORMALISE] + [(True, "ZScoreNormalization")])
def test_images_that_are_no_ct_are_normalised_as_nnunet_does(
    masked: bool, scheme: str, both: Both, images: np.ndarray
) -> None:
    image = images[1:] / 10 if scheme in ("RGBTo01Normalization", "NoNormalization") else images[1:]
    if scheme == "CTNormalization":
        image = images[:1]
    changes = {"normalization_schemes": [scheme], "use_mask_for_norm": [masked]}
    check(*both(image, SPACING, channels=("MR",), configuration=changes))


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_several_channels(masked: bool, both: Both, images: np.ndarray) -> None:
    changes = {
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [masked, masked],
    }
    check(*both(images, (5.0, 1.4, 1.6), channels=("CT", "PET"), transpose=(1, 0, 2), seed=2, configuration=changes))


def spline(order: int, order_z: int, force: bool | None) -> dict[str, Any]:
    return {"is_seg": False, "order": order, "order_z": order_z, "force_separate_z": force}


TORCH = {"is_seg": False, "memefficient_seg_resampling": False}
RESAMPLING = [
    ((3.0, 2.0, 2.0), spline(2, 0, None), spline(0, 0, None)),
    ((3.0, 2.0, 2.0), spline(0, 0, False), spline(2, 0, False)),
    ((3.0, 2.0, 2.0), spline(3, 0, False), spline(3, 0, False)),
    ((8.0, 2.0, 2.0), spline(3, 1, None), spline(1, 1, None)),
    ((8.0, 2.0, 2.0), spline(1, 3, None), spline(3, 2, None)),
    ((8.0, 2.0, 2.0), spline(3, 0, None), spline(2, 0, True)),
    ((2.0, 8.0, 2.5), spline(2, 2, True), spline(3, 0, None)),
    ((3.0, 2.0, 2.0), spline(3, 0, False), spline(1, 0, True)),
    ((3.0, 2.0, 2.0), TORCH | {"force_separate_z": False}, TORCH | {"force_separate_z": False}),
    ((8.0, 2.0, 2.0), TORCH, TORCH | {"force_separate_z": None, "num_threads": 1}),
    ((2.0, 2.5, 8.0), TORCH | {"aniso_axis_mode": "linear", "mode": "linear"}, TORCH | {"force_separate_z": True}),
    ((3.0, 2.0, 2.0), {}, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spacing", "image", "logits"), RESAMPLING)
def test_other_ways_of_resampling(
    spacing: tuple[float, float, float], image: dict[str, Any], logits: dict[str, Any], both: Both, images: np.ndarray
) -> None:
    changes: dict[str, Any] = {}
    for name, given in (("data", image), ("probabilities", logits)):
        function = "resample_data_or_seg_to_shape" if "order" in given else "resample_torch_fornnunet"
        changes[f"resampling_fn_{name}"] = function if given else "no_resampling_hack"
        changes[f"resampling_fn_{name}_kwargs"] = given
    coarse = (slice(None, 1), *(slice(8, 20) if mm > 5 else slice(6, 38) for mm in spacing))
    check(*both(images[coarse], spacing, configuration=changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "ending"),
    [
        ("NibabelIO", ".nii.gz"),
        ("NibabelIOWithReorient", ".nii.gz"),
        ("SimpleITKIOWithReorient", ".nii.gz"),
        ("SimpleITKIO", ".nrrd"),
        ("SimpleITKIO", ".mha"),
    ],
)
def test_files_of_several_channels_that_are_stored_otherwise(
    reader: str,
    ending: str,
    exported: Callable[..., tuple[Path, Predictor]],
    images: np.ndarray,
    save_scan: Callable[..., Path],
    tmp_path: Path,
) -> None:
    import SimpleITK as sitk

    changes = {"normalization_schemes": ["CTNormalization", "ZScoreNormalization"], "use_mask_for_norm": [False, False]}
    model, predictor = exported(
        channels=("CT", "PET"), seed=2, reader=reader, configuration=changes, dataset={"file_ending": ending}
    )
    files = []
    for number, channel in enumerate(images):
        files.append(save_scan(tmp_path / f"x_{number:04d}.nii.gz", channel.astype(np.int16), (2.0, 3.0, 2.5), "ASL"))
        if ending != ".nii.gz":
            image = sitk.ReadImage(files[-1])
            files[-1] = files[-1].with_name(f"x_{number:04d}{ending}")
            sitk.WriteImage(image, files[-1], True)
    record = segment_file(predictor, files, tmp_path / "ours")
    assert record.status == "done", record.error
    theirs = nnunet_of(model)
    data, properties = theirs.plans_manager.image_reader_writer_class().read_images([str(file) for file in files])
    theirs.predict_single_npy_array(data, properties, None, str(tmp_path / "theirs"))
    maps = (sitk.ReadImage(path) for path in (tmp_path / "ours" / "x.nii.gz", tmp_path / f"theirs{ending}"))
    check(*(sitk.GetArrayFromImage(one).astype(np.uint8) for one in maps))


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_labels_are_nnunets(name: str, both: Both, blob: np.ndarray) -> None:
    check(*both(blob[None, :, 8:-8, 8:-8], SPACING, **PLANS[name]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spacing", "orientation", "plan"),
    [
        ((3.0, 2.0, 2.0), "LPS", {}),
        ((2.0, 3.0, 2.5), "ASL", {}),
        ((8.0, 2.0, 2.0), "LPS", {"transpose": (1, 0, 2)}),
        ((3.0, 2.0, 2.0), "RAS", {"dataset": REGIONS}),
        ((3.0, 2.0, 2.0), "LPS", {"labels": 40}),
    ],
)
def test_probabilities_are_nnunets(
    spacing: tuple[float, float, float],
    orientation: str,
    plan: dict[str, Any],
    exported: Callable[..., tuple[Path, Predictor]],
    images: np.ndarray,
    save_scan: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """nnU-Net's lie in the file's own axes too. Its logits are float16."""
    model, predictor = exported(**plan)
    ct = images[0, :8] if spacing[0] > 5 else images[0]
    ct = ct.copy()
    ct[:, :4] = 0  # is cropped
    scan = save_scan(tmp_path / "x_0000.nii.gz", ct.astype(np.int16), spacing, orientation)
    record = segment_file(predictor, scan, tmp_path / "ours", probabilities=True)
    assert record.status == "done" and record.probabilities, record.error
    theirs = nnunet_of(model)
    data, properties = theirs.plans_manager.image_reader_writer_class().read_images([str(scan)])
    theirs.predict_single_npy_array(data, properties, None, str(tmp_path / "theirs"), True)
    expected = np.load(tmp_path / "theirs.npz")["probabilities"]
    expected = expected[len(expected) - len(record.probabilities) :]  # without the background
    assert expected.max() > 0.9
    for name, values in zip(record.probabilities, expected, strict=True):
        ours = nib.load(tmp_path / "ours" / "x.probabilities" / name).get_fdata().transpose(2, 1, 0)
        far = np.abs(ours - values)
        assert far.mean() < 0.001 and np.quantile(far, 0.999) < 0.02, name  # bytes alone cost 0.001 and 0.002
