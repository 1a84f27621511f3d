"""What several tests need: shared data where it is there, and small networks with random weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
TINY_PATCH = [8, 16, 24]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of open CT scans; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SHARED_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set SHARED_DATA")
    return folder


def write_model(folder: Path, **changes: Any) -> Path:
    """A result folder of nnU-Net v2 with a tiny network of random weights; see `tiny_plan` for the changes."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("nnunetv2")
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans, dataset = tiny_plan(**changes)
    torch.manual_seed(changes.get("seed", 0))
    architecture = plans["configurations"]["tiny"]["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(dataset["labels"]),
        deep_supervision=True,
    )
    with torch.no_grad():  # logits that differ enough between channels for a label map with structure
        for layer in network.decoder.seg_layers:
            layer.weight *= 8
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "tiny", "fold": 0},
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "logging": {"train_losses": [np.float32(0.5)], "dice": [np.float64(0.25)]},  # nnU-Net's are NumPy scalars too
    }
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def tiny_plan(
    *,
    architecture: str = "PlainConvUNet",
    labels: int = 5,
    spacing: tuple[float, float, float] = (4.0, 3.0, 3.0),
    transpose: tuple[int, int, int] = (0, 1, 2),
    orientation: str | None = "LPS",
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """plans.json and dataset.json of a U-Net with three stages of 4, 8 and 12 features."""
    from training.plans import bare_plans

    plans = bare_plans("Dataset999_Tiny")
    tiny = deepcopy(plans["configurations"].pop("student"))
    del plans["configurations"]["near_isotropic"], plans["configurations"]["teacher"]
    tiny |= {"patch_size": TINY_PATCH, "spacing": list(spacing), "data_identifier": "nnUNetPlans_tiny"}
    tiny["architecture"]["network_class_name"] = f"dynamic_network_architectures.architectures.unet.{architecture}"
    arch = tiny["architecture"]["arch_kwargs"]
    arch |= {"n_stages": 3, "features_per_stage": [4, 8, 12], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
    arch |= {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "n_conv_per_stage_decoder": [1, 1]}
    if architecture == "ResidualEncoderUNet":
        arch["n_blocks_per_stage"] = [1, 2, 2]
        del arch["n_conv_per_stage"]
    else:
        arch["n_conv_per_stage"] = [2, 2, 2]
    plans["configurations"]["tiny"] = tiny
    plans["transpose_forward"] = list(transpose)
    plans["transpose_backward"] = [transpose.index(axis) for axis in range(3)]
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"organ_{value}": value for value in range(1, labels)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if orientation:
        dataset["orientation"] = orientation
    return plans, dataset


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result folder of a tiny network."""
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tiny_weights(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with two exported tiny networks: organ (values 1..4) and tumor (14)."""
    from inference.export.convert import export

    weights = tmp_path_factory.mktemp("weights")
    export(tiny_model, weights / "organ", trained_on="random weights")
    tumor = write_model(tmp_path_factory.mktemp("model") / "tumor", labels=2, seed=1)
    export(tumor, weights / "tumor", values={"organ_1": 14}, trained_on="random weights")
    for name in ("organ", "tumor"):
        card = weights / name / "card.json"
        card.write_text(json.dumps(json.loads(card.read_text()) | {"way": "abdomen"}))
    return weights


@pytest.fixture(scope="session")
def save_scan() -> Callable[..., Path]:
    """Writes voxels (z, y, x) as a NIfTI file whose axes run towards `orientation`."""

    def save(path: Path, voxels: np.ndarray, spacing: tuple[float, ...], orientation: str = "LPS") -> Path:
        from nibabel.orientations import axcodes2ornt

        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for stored, (world, sign) in enumerate(axcodes2ornt(tuple(orientation))):
            affine[int(world), stored] = sign * spacing[2 - stored]
            affine[int(world), 3] = -sign * spacing[2 - stored] * voxels.shape[2 - stored] / 2
        image = nib.Nifti1Image(voxels.transpose(2, 1, 0), affine)
        image.header.set_xyzt_units("mm", "sec")
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
        return path

    return save


@pytest.fixture(scope="session")
def blob() -> np.ndarray:
    """A body of soft tissue with structure in it, in air: (z, y, x) = (26, 60, 72) int16 HU."""
    rng = np.random.default_rng(7)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (26, 60, 72)), indexing="ij")
    hu = np.where((y / 0.8) ** 2 + (x / 0.9) ** 2 < 1, 40.0, -1000.0)
    for _ in range(25):
        centre, radius, value = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.1, 0.3), rng.uniform(-120, 200)
        near = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        hu[near & (hu > -900)] = value
    return np.rint(hu + rng.normal(0, 10, hu.shape)).astype(np.int16)


FSYNC = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int fsync(int descriptor) {
  struct stat status;
  const char *what = getenv("FAIL_FSYNC");
  if (what && !fstat(descriptor, &status) && !strcmp(what, S_ISDIR(status.st_mode) ? "folder" : "file")) {
    errno = atoi(getenv("FAIL_ERRNO"));
    return -1;
  }
  return syscall(SYS_fsync, descriptor);
}
"""


@pytest.fixture(scope="session")
def failing_fsync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for LD_PRELOAD: fsync of what FAIL_FSYNC names ("folder" or "file") gives the errno FAIL_ERRNO."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    source = tmp_path_factory.mktemp("preload") / "fsync.c"
    source.write_text(FSYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", source.with_suffix(".so"), source], check=True)
    return source.with_suffix(".so")
