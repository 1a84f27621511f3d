"""How one patient's organs would lie in another's: found on bodies whose difference is known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.labels import IGNORE  # noqa: E402
from training.shapes import displacement, displacements, organ_masks  # noqa: E402
from training.warp import bent  # noqa: E402

SPACING = (3.0, 3.0, 3.0)
PLACES = {1: (30, 30, 20), 2: (36, 50, 24), 3: (30, 50, 68), 11: (34, 24, 60), 13: (38, 56, 56), 4: (36, 40, 44)}
RADII = {1: 14, 2: 7, 3: 8, 11: 9, 13: 7, 4: 6}


def body(spleen: float = 1.0) -> np.ndarray:
    """A label map (60, 72, 90) of balls, the spleen larger or smaller by so many times."""
    z, y, x = np.ogrid[:60, :72, :90]
    label = np.zeros((60, 72, 90), np.uint8)
    for code, (a, b, c) in PLACES.items():
        radius = RADII[code] * (spleen if code == 3 else 1.0)
        label[(z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 <= radius**2] = code
    return label


def warped(label: np.ndarray, field: np.ndarray) -> np.ndarray:
    """The label map as a patch of all of it shows it."""
    axes = [torch.arange(n).float() * step for n, step in zip(label.shape, SPACING, strict=True)]
    where = bent(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1), torch.from_numpy(field).float(), 1.0)
    index = (where / torch.tensor(SPACING)).round().long()
    z, y, x = (index[..., axis].clamp(0, n - 1).numpy() for axis, n in enumerate(label.shape))
    return label[z, y, x]


@pytest.mark.parametrize("spleen", [1.35, 0.7])
def test_an_organ_takes_the_size_that_it_has_in_the_other(spleen: float) -> None:
    own, other = body(), body(spleen)
    field = displacement(organ_masks(own, SPACING), organ_masks(other, SPACING))
    assert field is not None
    after = warped(own, field)
    wanted, before, reached = ((one == 3).sum() for one in (other, own, after))
    assert 0.3 < (reached - before) / (wanted - before) < 1.2
    assert 0.85 < (after == 1).sum() / (own == 1).sum() < 1.15


def test_a_patient_is_its_own_shape_and_others_that_share_few_organs_are_none() -> None:
    own = organ_masks(body(), SPACING)
    same = displacement(own, own)
    assert same is not None and np.abs(same).max() < 0.1
    few = np.where(np.isin(body(), (1, 2, 3)), body(), 0).astype(np.uint8)
    assert displacement(own, organ_masks(few, SPACING)) is None
    assert displacements(own, [organ_masks(few, SPACING)], 3, seed=1).shape[0] == 0
    assert displacements(own, [own, own], 1, seed=1).shape[0] == 1


def test_organs_that_are_cut_or_in_part_unknown_are_left_out() -> None:
    label = body()
    assert set(organ_masks(label, SPACING).masks) == set(PLACES)
    label[:30][label[:30] == 3] = IGNORE
    assert set(organ_masks(label, SPACING).masks) == set(PLACES) - {3}
    assert set(organ_masks(label[20:], SPACING).masks) == set(PLACES) - {1, 3}
