"""Patches shown in another contrast phase: organs as bright as there, and nothing else moved."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.chance import Chance  # noqa: E402
from training.labels import IGNORE, ORGANS, TUMOR  # noqa: E402
from training.phases import ORGAN_HU, in_another_phase  # noqa: E402

SPACING = (2.5, 1.6, 1.6)
LIVER, AORTA, GALLBLADDER = (ORGANS[name] for name in ("liver", "aorta", "gallbladder"))


@pytest.fixture
def patch():  # type: ignore[no-untyped-def]
    """An arterial scan: liver, aorta and gallbladder in soft tissue, an unlabelled vessel, and a vertebra."""
    hu, label = torch.full((1, 1, 24, 80, 80), 50.0), torch.zeros((1, 1, 24, 80, 80), dtype=torch.long)
    for code, level, y, x in ((LIVER, 70.0, 4, 4), (AORTA, 320.0, 4, 30), (GALLBLADDER, 8.0, 4, 50)):
        label[0, 0, :, y : y + 16, x : x + 16] = code
        hu[0, 0, :, y : y + 16, x : x + 16] = level
    hu[..., 8, 8:12] = -100  # fat in the liver
    hu[..., 30:34, 4:8] = 200  # a vessel
    hu[..., 44:76, 40:76] = 190  # spongy bone in its shell
    hu[..., 42:44, 38:78] = hu[..., 76:78, 38:78] = 700
    label[..., 60:64, 4:8] = IGNORE
    return hu, label


def shown(patch, number: int):  # type: ignore[no-untyped-def]
    hu, label = patch
    return in_another_phase(Chance.seeded(torch.device("cpu"), 3, number), hu, label, SPACING)


def test_each_phase_is_met_and_organs_are_as_bright_as_in_one_of_them(patch) -> None:  # type: ignore[no-untyped-def]
    _, label = patch
    aorta = [float(shown(patch, number)[label == AORTA].mean()) for number in range(40)]
    assert min(aorta) < 70 and max(aorta) > 200
    means, spread = ORGAN_HU["aorta"]
    assert all(min(means) - 4 * spread < level < max(means) + 4 * spread for level in aorta)


def test_fat_bile_bone_and_what_is_unknown_stay_and_vessels_fade_without_contrast(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    faded = 0
    for number in range(40):
        after = shown(patch, number)
        kept = (label == GALLBLADDER) | (label == IGNORE) | (hu < -50)
        kept[..., 42:78, 38:78] = True
        assert torch.equal(after[kept], hu[kept])
        vessel = float(after[0, 0, 12, 31, 5])
        if float(after[label == AORTA].mean()) > 100:
            assert vessel == 200
        faded += vessel < 80
    assert 5 < faded < 35


def test_a_patch_with_a_tumour_stays_as_it_is(patch) -> None:  # type: ignore[no-untyped-def]
    hu, label = patch
    label[0, 0, 10, 6, 6] = TUMOR
    assert torch.equal(shown((hu, label), 1), hu)
