"""Scores by hand on boxes, and FLARE's rules for tubes, empty masks and low overlap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("surface_distance")

from benchmark.evaluate import evaluate
from benchmark.process import start
from benchmark.scoring import TOLERANCES, TUBES, Score, read_pair, score_case
from inference.labels import BY_KEY
from tests.benchmark.runs import benchmark

SPACING = (1.0, 1.0, 2.5)
LIVER, AORTA, SPLEEN = 1, 5, 3


def box(x: slice, y: slice, z: slice, label: int = LIVER) -> np.ndarray:
    made = np.zeros((40, 40, 20), np.uint8)
    made[x, y, z] = label
    return made


def test_the_same_mask_scores_1_and_a_shifted_one_by_its_overlap() -> None:
    reference = box(slice(10, 30), slice(10, 30), slice(5, 15))
    assert score_case(reference, reference, SPACING, [LIVER]) == {LIVER: Score(1.0, 1.0)}
    moved = score_case(np.roll(reference, 4, 0), reference, SPACING, [LIVER])[LIVER]
    assert moved.dsc == pytest.approx(16 / 20)
    assert moved.nsd == 1  # 4 mm, the liver's tolerance is 5
    far = score_case(np.roll(reference, 8, 0), reference, SPACING, [LIVER])[LIVER]
    assert far.dsc == pytest.approx(12 / 20)
    assert far.nsd is not None
    assert 0 < far.nsd < 1


def test_every_label_has_its_tolerance() -> None:
    assert TOLERANCES.keys() == BY_KEY.keys() and BY_KEY.keys() >= set(TUBES)


def test_empty_masks() -> None:
    reference = box(slice(10, 30), slice(10, 30), slice(5, 15))
    scores = score_case(reference, reference * 0, SPACING, [LIVER, SPLEEN])
    assert scores == {LIVER: Score(0.0, 0.0), SPLEEN: Score(1.0, 1.0)}
    assert score_case(reference * 0, reference, SPACING, [LIVER]) == {LIVER: Score(0.0, 0.0)}


def test_below_a_fifth_of_overlap_the_surface_does_not_count() -> None:
    reference = box(slice(10, 30), slice(10, 30), slice(5, 15))
    score = score_case(np.roll(reference, 17, 0), reference, SPACING, [LIVER])[LIVER]
    assert score.dsc == pytest.approx(3 / 20)
    assert score.nsd == 0


def test_a_tube_is_scored_between_the_ends_of_its_reference_the_highest_slice_left_out() -> None:
    reference = box(slice(15, 20), slice(15, 20), slice(5, 15), AORTA)
    longer = box(slice(15, 20), slice(15, 20), slice(0, 20), AORTA)
    assert score_case(longer, reference, SPACING, [AORTA]) == {AORTA: Score(1.0, 1.0)}
    longer[:, :, 14] = 0
    assert score_case(longer, reference, SPACING, [AORTA]) == {AORTA: Score(1.0, 1.0)}
    one_slice = box(slice(15, 20), slice(15, 20), slice(5, 6), AORTA)
    assert score_case(longer, one_slice, SPACING, [AORTA]) == {AORTA: Score(None, None)}


def test_what_cannot_be_compared(save_scan: Callable[..., Path], tmp_path: Path) -> None:
    reference = box(slice(10, 30), slice(10, 30), slice(5, 15))
    with pytest.raises(ValueError, match="cannot be compared"):
        score_case(reference[1:], reference, SPACING, [LIVER])
    a = save_scan(tmp_path / "a.nii.gz", reference.T, (2.5, 1.0, 1.0))
    b = save_scan(tmp_path / "b.nii.gz", reference.T, (2.0, 1.0, 1.0))
    c = save_scan(tmp_path / "c.nii.gz", reference.T * np.float32(0.5), (2.5, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"a\.nii\.gz and .*b\.nii\.gz do not lie on the same grid"):
        read_pair(a, b)
    with pytest.raises(ValueError, match=r"c\.nii\.gz is no label map"):
        read_pair(a, c)
    first, second, spacing = read_pair(a, a)
    assert np.array_equal(first, second)
    assert spacing == pytest.approx((1.0, 1.0, 2.5))


@pytest.mark.slow
def test_evaluate_segments_and_scores(
    blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    scan = save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    (tmp_path / "x_0007.nii.gz").touch()  # so that this is no channel, and the case x_0000
    flags = "--device cpu --engine onnxruntime"
    start(scan, tmp_path / "reference", "--weights", tiny_weights, *flags.split())
    done = benchmark("evaluate", tiny_weights, scan, "--references", tmp_path / "reference", "--flags", flags)
    # Scored against its own answer, every label that was found is perfect.
    assert "| mean of organs | 100.0 / 100.0 | 100.0 / 100.0 |" in done.stdout, done.stderr


def test_no_scan_is_left_out_of_the_scores_without_a_word(tmp_path: Path) -> None:
    for name in ("a/ct_0000.nii.gz", "b/ct_0000.nii.gz", "b/x_0000.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for scans, cause in ((["b"], "b holds 2 scans"), (["a", "b/ct_0000.nii.gz"], "have the same case name, ct")):
        with pytest.raises(ValueError, match=cause):
            evaluate(tmp_path, [tmp_path / scan for scan in scans], tmp_path, [], [])
    (tmp_path / "ct.nii.gz").touch()
    with pytest.raises(ValueError, match=r"x\.nii\.gz is not there, the reference of .*x_0000\.nii\.gz"):
        evaluate(tmp_path, [tmp_path / "a", tmp_path / "b" / "x_0000.nii.gz"], tmp_path, [], [])  # nor is a segmented


def test_what_nobody_can_tell_counts_nowhere() -> None:
    reference = np.zeros((10, 10, 10), np.uint8)
    reference[2:8, 2:8, 2:5] = 1
    reference[2:8, 2:8, 5:8] = 255
    prediction = np.zeros_like(reference)
    prediction[2:8, 2:8, 2:8] = 1
    assert score_case(prediction, reference, (1.0, 1.0, 1.0), [1])[1] == Score(1.0, 1.0)
    prediction[2:8, 2:8, 2] = 0  # two planes of three are found
    assert score_case(prediction, reference, (1.0, 1.0, 1.0), [1])[1].dsc == pytest.approx(2 * 2 / (2 + 3))
