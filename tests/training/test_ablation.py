"""One arm of the ablation on a torso of blocks, trained for one step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("torch")

from training import ablation
from training.anatomy import Tissue, build_anatomy, merge_classes
from training.synthesis import Renderer
from training.train import train


def test_an_arm_is_trained_scored_and_not_done_twice(
    tmp_path: Path, save_scan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tissue = np.zeros((30, 60, 80), np.uint8)
    tissue[:, 5:55, 5:75] = Tissue.FAT
    tissue[5:25, 15:45, 10:40] = Tissue.LIVER
    hu = np.where(tissue > 0, np.where(tissue == Tissue.LIVER, 110, -100), -1000).astype(np.int16)
    scan = save_scan(tmp_path / "labelled" / "ts_slab_0000.nii.gz", hu, (4.0, 3.0, 3.0))
    image = nib.load(scan)
    label = (tissue == Tissue.LIVER).astype(np.uint8).transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(label, image.affine), tmp_path / "labelled" / "ts_slab.nii.gz")
    anatomy = build_anatomy("blocks", tissue, np.zeros(tissue.shape, bool), (4.0, 3.0, 3.0), merge_classes())
    asked = []

    def open_sources(data: Path, synthetic: float, pseudo: float, labels: Path, without: list[str]) -> object:
        asked.append((synthetic, pseudo, without))
        return [(Renderer(anatomy), 1.0)]

    monkeypatch.setattr(ablation, "open_sources", open_sources)
    # Without a worker process: PyTorch's handler of SIGCHLD, on the stack that pytest's faulthandler sets aside for
    # signals, ended the whole test run with SIGSEGV in the subprocess that follows.
    monkeypatch.setattr(ablation, "train", partial(train, workers=0))
    monkeypatch.setattr(ablation, "ARMS", {"organs, tumour": ablation.Arm(0.5, 0.2, "unified")})
    monkeypatch.setattr("training.train.SIZES", [((24, 64, 64), 1, 1.0)])
    for _ in range(2):
        found = ablation.run(tmp_path / "run", tmp_path, tmp_path, ["ts_slab"], steps=1, seed=3)
        assert set(found) == {"organs, tumour"} and 0 <= found["organs, tumour"] <= 1
    assert asked == [(0.5, 0.2, ["ts_slab"])]
