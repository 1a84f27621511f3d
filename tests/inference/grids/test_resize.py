"""Matrices against the routines that nnU-Net calls, on unit vectors and by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from inference.grids.resize import (
    BLOCK,
    apply_matrix,
    axis_matrix,
    nearest_index,
    resampled_shape,
    sample_positions,
    separate_axis,
    taps,
)

SIZES = [(512, 341), (109, 68), (7, 20), (20, 7), (3, 9), (30, 30), (554, 346), (1, 3), (2, 5), (5, 2), (4, 1)]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_columns_are_scipys_answer_on_unit_vectors(n_in: int, n_out: int, order: int) -> None:
    units = np.eye(n_in)
    expected = np.stack(
        [ndimage.zoom(unit, n_out / n_in, order=order, mode="nearest", grid_mode=True) for unit in units], axis=1
    )
    assert np.abs(axis_matrix(n_in, n_out, order) - expected).max() < 1e-6


def test_doubling_places_samples_a_quarter_voxel_from_the_centres() -> None:
    assert sample_positions(2, 4).tolist() == [-0.25, 0.25, 0.75, 1.25]
    assert nearest_index(2, 4).tolist() == [0, 0, 1, 1]
    linear = taps(2, 4, 1)
    assert linear.lower.tolist() == [0, 0, 0, 0] and linear.upper.tolist() == [1, 1, 1, 1]
    assert linear.weight.tolist() == [0, 0.25, 0.75, 1]


def test_the_nearest_sample_is_pytorchs() -> None:
    """Where float32 rounds the ratio of sizes and the positions, other samples are nearest, of 2 to 49 for one."""
    torch = pytest.importorskip("torch")
    other = 0
    for n_in, n_out in product(range(1, 12), range(1, 100)):
        samples = torch.arange(float(n_in)).reshape(1, 1, n_in, 1, 1)
        expected = torch.nn.functional.interpolate(samples, (n_out, 1, 1), mode="nearest-exact").flatten().tolist()
        assert nearest_index(n_in, n_out, "torch").tolist() == expected
        other += nearest_index(n_in, n_out).tolist() != expected
    assert other


def test_every_row_sums_to_one() -> None:
    for order in (0, 1, 2, 3):
        np.testing.assert_allclose(axis_matrix(97, 61, order).sum(axis=1), 1, atol=1e-6)


def test_another_order_is_refused() -> None:
    with pytest.raises(ValueError, match="order 4"):
        axis_matrix(4, 4, 4)


@pytest.mark.parametrize("axis", [1, 2])
def test_blocks_give_the_same_as_the_whole_matrix(axis: int) -> None:
    array = np.random.default_rng(0).normal(size=(3, 150, 140)).astype(np.float32)
    matrix = axis_matrix(array.shape[axis], 2 * BLOCK + 9, 3)
    whole = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
    np.testing.assert_allclose(apply_matrix(matrix, array, axis), whole, atol=1e-5)


def test_the_identity_copies_nothing() -> None:
    array = np.ones((2, 5, 5), np.float32)
    assert apply_matrix(axis_matrix(5, 5, 3), array, 1) is array


@pytest.mark.parametrize(
    ("spacing", "new", "axis"),
    [
        ((2.5, 0.8, 0.8), (2.0, 0.9, 0.9), 0),  # the scan is coarse along z
        ((1.0, 1.0, 1.0), (4.0, 1.2, 1.2), 0),  # the target is
        ((1.0, 1.0, 1.0), (2.5, 0.86, 0.86), None),  # neither is
        ((0.8, 0.8, 5.0), (2.5, 0.86, 0.86), 2),
        ((5.0, 5.0, 1.0), (2.5, 0.86, 0.86), None),  # two coarse axes: none on its own
    ],
)
def test_the_coarse_axis_is_resampled_on_its_own(
    spacing: tuple[float, ...], new: tuple[float, ...], axis: int | None
) -> None:
    assert separate_axis(spacing, new) == axis


def test_the_plans_can_force_the_coarse_axis() -> None:
    assert separate_axis((5, 1, 1), (5, 1, 1), force=False) is None
    assert separate_axis((2, 1, 1), (2, 1, 1), force=True) == 0


def test_shapes_round_half_to_even_as_nnunet_does() -> None:
    assert resampled_shape((5, 5, 7), (1, 1, 1), (2, 2, 2)) == (2, 2, 4)
