"""Our labels beside those of nnU-Net's own predictor, from file to file, for scans that are no volume of a body."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from benchmark.parity import agreement  # noqa: E402
from inference.errors import JOIN, ScanError  # noqa: E402
from inference.export.convert import export  # noqa: E402
from inference.formats.reading import read_scan  # noqa: E402
from inference.predictor import Predictor  # noqa: E402
from inference.task import segment_file  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.made.networks import write_model  # noqa: E402
from tests.made.nnunet import nnunet_of  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_processes")]


def theirs(model: Path, scan: Path, checkpoint: str = "checkpoint_final.pth") -> np.ndarray:
    """nnU-Net's labels (z, y, x) of a file."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    predictor = nnunet_of(model, checkpoint=checkpoint)
    labels: np.ndarray = predictor.predict_single_npy_array(*SimpleITKIO().read_images([str(scan)]))
    return labels


def same(model: Path, weights: Path, scan: Path, accept: bool = False) -> list[str]:
    """Compare, and return what was odd about the scan."""
    predictor = Predictor(weights=weights, plan="dense", precision="f32", device="cpu", accept_intensities=accept)
    record = segment_file(predictor, scan, weights / "out")
    assert record.status == "done", record.error
    written = weights / "out" / f"{scan.name.split('_0000')[0]}.nii.gz"
    mine = read_scan(written, ct=[False], abdominal=False).voxels.astype(np.uint8)
    expected = np.asarray(theirs(model, scan), np.uint8)
    assert len(np.unique(expected)) >= 2, "there is something to compare"
    assert agreement(mine, expected).voxels >= 0.9995
    return record.warnings


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """int16, of soft blobs in HU."""
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), [min(n / 6, 2) for n in shape])
    return np.rint(noise / noise.std() * 250 - 100).astype(np.int16)


def test_a_2d_network_takes_single_planes(tmp_path: Path, save_scan: Callable[..., Path]) -> None:
    model = write_model(tmp_path / "m", spacing=(2.0, 2.0), mirror_axes=(0, 1))
    export(model, tmp_path / "w" / "net")
    plane = picture((1, 40, 52))
    scan = save_scan(tmp_path / "plane_0000.nii.gz", plane, (999.0, 2.1, 1.8))  # as nnU-Net has it of pictures
    assert not [text for text in same(model, tmp_path / "w", scan) if "voxels" in text and "equal" not in text]
    odd = same(model, tmp_path / "w", save_scan(tmp_path / "small_0000.nii.gz", plane, (5.0, 0.3, 0.5)))
    assert "covers 26 x 12 x 5 mm in 52 x 40 x 1 voxels: labels are wrong if its spacing is not in mm" in odd


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_a_3d_network_takes_scans_that_are_thin(transpose: Any, tmp_path: Path, save_scan: Callable[..., Path]) -> None:
    model = write_model(tmp_path / "m", transpose=transpose)
    export(model, tmp_path / "w" / "net")
    for number, shape in enumerate([(1, 90, 70), (70, 1, 90), (90, 70, 1), (2, 3, 700)]):
        scan = save_scan(tmp_path / f"thin{number}_0000.nii.gz", picture(shape), (3.0, 2.5, 2.5))
        odd = same(model, tmp_path / "w", scan)
        assert sum("network net sees 8 x 16 x 24 at once: is it for scans so thin?" in text for text in odd) == 1
    voxels = np.full((10, 20, 20), 40, np.int16)
    scan = save_scan(tmp_path / "constant_0000.nii.gz", voxels, (3.0, 2.0, 2.0))
    assert "is a constant image: every voxel is 40" in same(model, tmp_path / "w", scan, accept=True)


def test_single_planes_of_mr_by_the_commands(tmp_path: Path, save_scan: Callable[..., Path]) -> None:
    """From a checkpoint of training on several GPUs by another trainer to label maps of a folder."""
    zscore = {"normalization_schemes": ["ZScoreNormalization"]}
    model = write_model(
        tmp_path / "m", spacing=(2.0, 2.0), trainer="nnUNetTrainerDA5", mirror_axes=None, configuration=zscore,
        channels=["MR"], orientation=None, labels=3,
    )  # fmt: skip
    checkpoint = model / "fold_0" / "checkpoint_best.pth"
    (model / "fold_0" / "checkpoint_final.pth").rename(checkpoint)
    scans = [
        save_scan(tmp_path / "in" / f"mr{number}_0000.nii.gz", np.abs(picture(shape)), (6.0, 1.7, 2.2))
        for number, shape in enumerate([(1, 120, 104), (1, 80, 180)])
    ]
    expected = [theirs(model, scan, checkpoint.name) for scan in scans]
    stored = torch.load(checkpoint, weights_only=False)
    stored["network_weights"] = {f"module._orig_mod.{name}": one for name, one in stored["network_weights"].items()}
    torch.save(stored, checkpoint)

    exporting = ["inference.export", model, tmp_path / "w" / "net", "--checkpoint", checkpoint.name]
    running = ["inference", tmp_path / "in", tmp_path / "out", "--weights", tmp_path / "w", "--precision", "f32"]
    for program in (exporting, running):
        done = subprocess.run([sys.executable, "-m", *map(str, program)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    for number, labels in enumerate(expected):
        mine = read_scan(tmp_path / "out" / f"mr{number}.nii.gz", ct=[False], abdominal=False).voxels
        assert len(np.unique(labels)) >= 2 and (mine == labels).mean() >= 0.9995


def test_a_network_of_abdomens_takes_none_of_these(tmp_path: Path, save_scan: Callable[..., Path]) -> None:
    export(write_model(tmp_path / "m", dataset={"way": "abdomen"}), tmp_path / "w" / "net")
    predictor = Predictor(weights=tmp_path / "w", device="cpu")
    record = segment_file(
        predictor, save_scan(tmp_path / "x_0000.nii.gz", picture((1, 30, 34)), (3.0, 2.0, 2.0)), tmp_path
    )
    assert record.error == f"x_0000.nii.gz has only 34 x 30 x 1 voxels: no volume; {JOIN}"
    with pytest.raises(ScanError, match="the array has only 1 x 30 x 34 voxels"):
        predictor(picture((1, 30, 34)), (3.0, 2.0, 2.0), "LPS")


@pytest.mark.parametrize(("slope", "inter"), [(1e-6, 0.0), (-0.5, 3.0)])
def test_slopes_of_images_that_are_no_ct(
    slope: float, inter: float, tmp_path: Path, save_scan: Callable[..., Path]
) -> None:
    """Such as maps of diffusion, in mm2/s."""
    masked = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]}
    model = write_model(tmp_path / "m", configuration=masked, channels=["ADC"])
    export(model, tmp_path / "w" / "net")
    voxels = np.abs(picture((16, 30, 34)))
    voxels[:, :, :4] = 0
    scan = save_scan(tmp_path / "adc_0000.nii", voxels, (3.0, 2.0, 2.0))
    stored = bytearray(scan.read_bytes())
    stored[112:120] = np.array([slope, inter], "<f4").tobytes()
    scan.write_bytes(stored)
    same(model, tmp_path / "w", scan)
    with pytest.raises(ScanError, match="has the slope .*: not CT"):
        read_scan(scan)
