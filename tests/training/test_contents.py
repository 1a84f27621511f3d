"""Contents painted into patches: where they may be, and that they are there."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.chance import Chance  # noqa: E402
from training.contents import (  # noqa: E402
    distended,
    with_bile,
    with_bowel,
    with_contents,
    with_fluid,
    with_perfusion,
    without_organ,
)
from training.labels import ORGANS  # noqa: E402

SPACING = (2.5, 2.0, 2.0)
STOMACH, DUODENUM, GALLBLADDER, LIVER, SPLEEN = (
    ORGANS[name] for name in ("stomach", "duodenum", "gallbladder", "liver", "spleen")
)


@pytest.fixture
def patch():  # type: ignore[no-untyped-def]
    """Soft tissue of 40 HU in air, a bone, and a block of each organ; unknown voxels in a corner."""
    hu, label = torch.full((1, 1, 24, 64, 64), 40.0), torch.zeros((1, 1, 24, 64, 64), dtype=torch.long)
    hu[..., :6, :], hu[..., 58:, :] = -1000, 900
    for code, y, x in ((STOMACH, 8, 8), (DUODENUM, 8, 36), (GALLBLADDER, 32, 8), (LIVER, 32, 24), (SPLEEN, 32, 44)):
        label[0, 0, 4:20, y : y + 18, x : x + 14] = code
    label[0, 0, :2] = 255
    return hu, label


def chances(count: int) -> list[Chance]:
    return [Chance.seeded(torch.device("cpu"), 3, number) for number in range(count)]


@pytest.mark.parametrize(
    ("paint", "organs"),
    [
        (with_contents, (STOMACH, DUODENUM)),
        (with_bile, (GALLBLADDER,)),
        (with_perfusion, (LIVER, SPLEEN)),
    ],
)
def test_only_the_organ_is_painted(paint, organs, patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    touched = torch.zeros(label.shape, dtype=torch.bool)
    for chance in chances(12):
        before = hu.clone()
        touched |= paint(chance, hu, label, SPACING) != hu
        assert torch.equal(hu, before), "the patch itself is never written to"
    organ = torch.isin(label, torch.tensor(organs))
    edge = torch.nn.functional.max_pool3d(organ.float(), 3, 1, 1) > 0  # as soft as a voxel
    assert not touched[~edge].any()
    assert all(touched[label == code].float().mean() > 0.5 for code in organs)


def test_bowel_lies_in_soft_tissue_without_a_label(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    touched = torch.zeros(label.shape, dtype=torch.bool)
    for chance in chances(12):
        touched |= with_bowel(chance, hu, label, SPACING) != hu
    assert touched.any()
    assert not touched[label != 0].any()
    assert not touched[(hu < -150) | (hu > 200)].any()


def test_gas_lies_in_front_of_what_fills_the_stomach(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    front = behind = 0
    for chance in chances(100):
        filled = with_contents(chance, hu, label, SPACING)[0, 0, 12, 11:23, 13:17].mean(-1).numpy()
        gas = filled < -500
        if 0 < gas.sum() < len(gas) and np.abs(np.diff(gas.astype(int))).sum() == 1:
            front, behind = front + bool(gas[0]), behind + bool(gas[-1])
    # LPS: small y is the front, and the patient lies on the back. Gas beside something else may be anywhere.
    assert front > 3 * behind


def test_nothing_is_painted_where_there_is_nothing(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    for paint in (with_contents, with_bile):
        assert torch.equal(paint(chances(1)[0], hu, label * 0, SPACING), hu)
    assert torch.equal(with_bowel(chances(1)[0], hu * 0 - 1000, label * 0, SPACING), hu * 0 - 1000)


def test_an_organ_grows_or_shrinks_with_its_label_and_its_surroundings_follow(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    hu = torch.where(label == STOMACH, 300.0, hu)
    unseen = torch.zeros_like(label, dtype=torch.bool)
    unseen[0, 0, :3] = True
    before = int((label == STOMACH).sum())
    sizes = []
    for chance in chances(40):
        found, moved, beyond = distended(chance, hu, label, unseen, SPACING)
        sizes.append(int((moved == STOMACH).sum()) / before)
        # What is seen and what is labelled move together, but for edges, where a label is the nearest voxel's.
        assert float((found[moved == STOMACH] > 170).float().mean()) > 0.9
        assert float((found[moved == LIVER] < 170).float().mean()) > 0.9
        assert set(moved.flatten().tolist()) == set(label.flatten().tolist())
        assert abs(int(beyond.sum()) - int(unseen.sum())) < 0.2 * int(unseen.sum())
    assert min(sizes) < 0.75 and max(sizes) > 1.5


def test_nothing_moves_where_no_organ_is(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    empty = torch.zeros_like(label)
    for chance in chances(5):
        found = distended(chance, hu, empty, empty > 0, SPACING)
        assert found[0] is hu and found[1] is empty


def test_fluid_takes_the_place_of_fat_near_an_organ(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    hu[(label == 0) & (hu == 40)] = -100
    wet = torch.zeros(label.shape, dtype=torch.bool)
    for chance in chances(12):
        after = with_fluid(chance, hu, label, SPACING)
        wet |= after > -50
        assert torch.equal(after[label != 0], hu[label != 0])
    assert (wet & (hu == -100)).any()


def test_an_organ_that_is_removed_leaves_no_label_and_nothing_of_itself(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    removed = set()
    for chance in chances(30):
        after, left = without_organ(chance, hu, label, SPACING)
        gone = (label != left)[0, 0]
        removed |= set(label[0, 0][gone].tolist())
        assert not left[0, 0][gone].any()
        assert not gone.any() or float((after[0, 0][gone] == 40).float().mean()) < 0.05
    assert removed == {GALLBLADDER, SPLEEN}, "the patch has no kidneys"
