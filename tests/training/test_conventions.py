"""Where labels end, measured on bodies whose ends are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from training.conventions import (
    adrenal_ml,
    cava_above_liver,
    duodenum_left_of_aorta,
    esophagus_below_contact,
    kidney_fat,
    main,
    pancreas_bright,
    sinus_fat_in_kidney,
    sinus_tissue_in_kidney,
)
from training.labels import ORGANS

SPACING = (5.0, 2.0, 2.0)


def body(**boxes: tuple[slice, slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and HU (20, 60, 60)."""
    label, hu = np.zeros((20, 60, 60), np.uint8), np.full((20, 60, 60), -100.0)
    for organ, box in boxes.items():
        label[box], hu[box] = ORGANS[organ], 50
    return label, hu


def box(z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> tuple[slice, slice, slice]:
    return slice(*z), slice(*y), slice(*x)


def test_ends_are_millimetres_from_each_other() -> None:
    label, hu = body(
        liver=box((2, 15), (5, 30), (5, 30)),
        inferior_vena_cava=box((2, 17), (40, 44), (20, 24)),
        aorta=box((0, 20), (40, 44), (30, 34)),
        duodenum=box((3, 5), (30, 34), (20, 44)),
        esophagus=box((10, 20), (40, 44), (36, 40)),
        stomach=box((6, 14), (30, 44), (40, 56)),
        left_adrenal_gland=box((9, 11), (50, 55), (40, 50)),
    )
    assert cava_above_liver(label, hu, SPACING) == 10
    assert esophagus_below_contact(label, hu, SPACING) == 15
    assert duodenum_left_of_aorta(label, hu, SPACING) == 20
    assert adrenal_ml(label, hu, SPACING) == pytest.approx(100 * 0.02)
    assert cava_above_liver(label[:17], hu[:17], SPACING) is None, "the scan may cut it"
    assert esophagus_below_contact(label[10:], hu[10:], SPACING) is None, "the same at its other end"


def test_fat_of_the_sinus_and_bright_vessels() -> None:
    label, hu = body(right_kidney=box((4, 16), (10, 40), (10, 40)), pancreas=box((4, 8), (50, 55), (10, 30)))
    sinus = box((8, 12), (20, 24), (20, 24))
    hu[sinus] = -90
    assert sinus_fat_in_kidney(label, hu, SPACING) == 1
    assert kidney_fat(label, hu, SPACING) == pytest.approx(64 / (12 * 30 * 30))
    label[8:10, 20:24, 20:24] = 0
    assert sinus_fat_in_kidney(label, hu, SPACING) == 0.5
    hu[8:12, 20:24, 24:28] = 10  # the pelvis
    assert sinus_tissue_in_kidney(label, hu, SPACING) == 1
    hu[4:8, 50:52, 10:12] = 150
    assert pancreas_bright(label, hu, SPACING) == pytest.approx(16 / 400)
    label[label == ORGANS["right_kidney"]] = 0
    assert kidney_fat(label, hu, SPACING) is None and sinus_fat_in_kidney(label, hu, SPACING) is None


def test_data_that_are_not_there_are_named_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["conventions", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^error: {tmp_path} has no X_0000.nii.gz"):
        main()
