"""Placement and weights as nnU-Net has them; the abdomen plan on volumes whose answer is known."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from inference.windows.layout import grid, starts
from inference.windows.patches import FOUND, Corner, Plan, dense_plan, gaussian, middle_first
from inference.windows.planes import SHARED, wide_grid, wide_window

SHAPE, PATCH = (70, 300, 420), (32, 128, 192)
WHOLE = (slice(0, SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2]))


def drain(plan: Plan, saw: np.ndarray) -> list[Corner]:
    """All corners of a plan whose every window saw `saw`."""
    corners, group = [], next(plan, None)
    while group is not None:
        corners += group
        try:
            group = plan.send([saw] * len(group))
        except StopIteration:
            group = None
    return corners


def test_starts_by_hand() -> None:
    assert starts(10, 10, 0.5) == [0]
    assert starts(12, 8, 0.5) == [0, 4]
    assert starts(13, 8, 0.5) == [0, 2, 5]  # 5 / 4 -> 3 windows, 2.5 apart, halves rounded to even


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize("step", [0.5, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("shape", [(70, 300, 420), (32, 128, 192), (33, 129, 193), (97, 413, 413)])
def test_starts_are_nnunets(shape: tuple[int, int, int], step: float) -> None:
    reference = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    assert grid(shape, PATCH, step) == reference.compute_steps_for_sliding_window(shape, PATCH, step)


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize("patch", [(32, 128, 192), (8, 16, 16), (10, 30, 22), (48, 160, 224)])
def test_weights_are_nnunets_to_the_bit(patch: tuple[int, int, int]) -> None:
    reference = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    torch = pytest.importorskip("torch")
    expected = reference.compute_gaussian(patch, 1 / 8, 10, device=torch.device("cpu")).float().numpy()
    assert np.array_equal(gaussian(patch), expected)


@pytest.mark.parametrize("step", [0.0, 1.1, -1.0])
def test_a_step_out_of_range_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="step"):
        starts(20, 10, step)


def test_a_volume_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller than the window"):
        starts(9, 10, 0.5)


def test_the_dense_plan_yields_every_window_in_order_of_z() -> None:
    corners = drain(dense_plan(SHAPE, PATCH, 0.5), np.zeros(1))
    assert corners == list(product(*grid(SHAPE, PATCH, 0.5)))
    assert corners == sorted(corners)


def test_inside_a_box_windows_stand_where_the_dense_plan_has_them() -> None:
    box = (slice(10, 40), slice(150, 290), slice(0, 100))
    inside = set(product(*grid(SHAPE, PATCH, 0.5, box)))
    everywhere = set(product(*grid(SHAPE, PATCH, 0.5)))
    assert inside < everywhere
    # Each voxel of the box has its nearest window among them.
    for voxel in product((10, 25, 39), (150, 200, 289), (0, 50, 99)):
        centre = [
            min((abs(s + w / 2 - v - 0.5), s) for s in axis)[1]
            for axis, w, v in zip(grid(SHAPE, PATCH, 0.5), PATCH, voxel, strict=True)
        ]
        assert tuple(centre) in inside


def test_where_foreground_is_found_the_abdomen_plan_runs_every_window() -> None:
    foreground = np.ones((16, 32, 48))
    corners = drain(middle_first(SHAPE, PATCH, 0.5, WHOLE), foreground)
    assert sorted(corners) == list(product(*grid(SHAPE, PATCH, 0.5)))
    assert [z for z, _, _ in corners] == sorted(z for z, _, _ in corners)  # slabs can be finished in order


def test_where_none_is_found_only_the_middle_runs() -> None:
    corners = drain(middle_first(SHAPE, PATCH, 0.5, WHOLE), np.zeros((16, 32, 48)))
    zs, ys, xs = grid(SHAPE, PATCH, 0.5)
    assert {z for z, _, _ in corners} == set(zs)
    assert len(corners) < len(zs) * len(ys) * len(xs)
    assert {y for _, y, _ in corners} == set(ys[(len(ys) - 1) // 2 : len(ys) // 2 + 1])


def test_the_threshold_decides() -> None:
    few, enough = np.zeros(40000), np.zeros(40000)
    few[: int(40000 * FOUND / 4) - 1] = 1  # the middle holds at most four windows
    enough[: int(40000 * FOUND)] = 1
    assert len(drain(middle_first(SHAPE, PATCH, 0.5, WHOLE), few)) < len(
        drain(middle_first(SHAPE, PATCH, 0.5, WHOLE), enough)
    )


def test_wide_windows_by_hand() -> None:
    multiple = (8, 16, 16)
    assert wide_window((64, 250, 330), multiple, 64, 0.5, 10**7) == (64, 256, 336)
    # A scan of few planes is padded to 32, or to the depth of the patch.
    assert wide_window((11, 40, 16), multiple, 64, 0.5, 10**7) == (32, 48, 16)
    assert wide_window((11, 40, 16), multiple, 24, 0.5, 10**7) == (24, 48, 16)
    assert wide_window((11, 250, 330), multiple, 64, 0.5, 2_000_000) == (32, 256, 224)  # 2.75 million are too many
    # Two windows over 70 planes that share 16 have 43 each. Where 32 are the most, four share 20 each.
    assert wide_window((70, 250, 330), multiple, 64, 0.5, 10**7) == (48, 256, 336)
    assert wide_window((70, 250, 330), multiple, 32, 0.5, 10**7) == (32, 256, 336)
    assert [len(set(along)) for along in wide_grid((70, 256, 336), (32, 256, 336), 0.5)] == [4, 1, 1]
    # 40 planes of 256 x 336 are 3.44 million voxels, 48 are 4.13 million: three windows of 40 share 25.
    assert wide_window((70, 250, 330), multiple, 64, 0.5, 4_000_000) == (40, 256, 336)
    # 32 x 256 x 336 is 2.75 million voxels: two windows of 224 overlap by 112 over the 330 of the longer axis.
    assert wide_window((70, 250, 330), multiple, 64, 0.5, 2_000_000) == (32, 256, 224)
    assert wide_window((70, 250, 330), multiple, 64, 1.0, 2_000_000) == (40, 256, 176)
    assert wide_window((70, 250, 330), multiple, 64, 0.5, 1) == (32, 16, 16)


@pytest.mark.parametrize("most", [300_000, 1_000_000, 5_000_000])
def test_wide_windows_cover_a_volume_within_their_limit(most: int) -> None:
    window = wide_window(SHAPE, (8, 16, 16), 48, 0.5, most)
    assert np.prod(window) <= most
    covered = np.zeros([max(n, w) for n, w in zip(SHAPE, window, strict=True)], bool)
    zs, ys, xs = wide_grid(covered.shape, window, 0.5)
    assert all(after - before <= window[0] - min(SHARED, window[0] // 2) for before, after in pairwise(zs))
    for corner in product(zs, ys, xs):
        covered[tuple(slice(c, c + n) for c, n in zip(corner, window, strict=True))] = True
    assert covered.all()
