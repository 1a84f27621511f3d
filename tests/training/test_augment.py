"""Patches cut out of packed scans: where they lie, and what is done to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")

from tests.training.conftest import SPACING, abdomen  # noqa: E402
from training.augment import HOSTS, Patches, Volume, with_lesions  # noqa: E402
from training.chance import Chance  # noqa: E402
from training.labels import IGNORE, TUMOR  # noqa: E402
from training.packed import Packed, packed_file, read_packed  # noqa: E402
from training.scanners import blur  # noqa: E402

CPU = torch.device("cpu")
SHAPE = (12, 20, 28)


@pytest.fixture(scope="module")
def volumes(packed: Path) -> list[Volume]:
    return [Volume(read_packed(packed_file(packed, name)), CPU) for name in ("one", "two")]


def test_the_same_seed_gives_the_same_patch_and_another_another(volumes: list[Volume]) -> None:
    patches = Patches(volumes, [1.0, 1.0], SPACING, lesions=0.5)
    (one, label), (again, same), (other, _) = (
        patches.batch(Chance.seeded(CPU, 3, step), SHAPE, 2) for step in (7, 7, 8)
    )
    assert torch.equal(one, again) and torch.equal(label, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_patches_are_in_the_networks_range_and_hold_the_labels_of_the_scan(volumes: list[Volume]) -> None:
    patches = Patches(volumes, [1.0, 1.0], SPACING, lesions=0.3)
    seen: set[int] = set()
    for step in range(25):
        image, label = patches.patch(Chance.seeded(CPU, step), SHAPE)
        assert image.shape == (1, 1, *SHAPE) and label.shape == (1, *SHAPE)
        assert (image.dtype, label.dtype) == (torch.float32, torch.int64)
        assert float(image.min()) >= (-160 - 80) / 70 - 1e-5 and float(image.max()) <= (240 - 80) / 70 + 1e-5
        seen |= set(np.unique(label).tolist())
    assert seen == {0, 1, 5, TUMOR, IGNORE}


def test_a_scan_without_a_share_is_never_drawn(volumes: list[Volume]) -> None:
    marked = Volume(Packed("marked", np.full((9, 9, 9), 60, np.uint8), np.full((9, 9, 9), 3, np.uint8), SPACING), CPU)
    patches = Patches([volumes[0], marked], [1.0, 0.0], SPACING, lesions=0.0)
    assert all(not (patches.patch(Chance.seeded(CPU, step), SHAPE)[1] == 3).any() for step in range(20))


def test_a_volume_is_sampled_at_millimetres_and_ends_where_it_ends() -> None:
    codes = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) + 50
    label = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) % 15
    volume = Volume(Packed("x", codes, label, (5.0, 2.0, 1.0)), CPU)
    where = torch.tensor([[0.0, 0, 0], [5.0, 2, 1], [7.5, 4, 2], [-3.0, 2, 1], [5.0, -1.5, 1], [5.0, 2, 2.9]])
    hu, found, unseen = (x.flatten().tolist() for x in volume.sample(where.view(6, 1, 1, 3)))
    assert hu[:3] == pytest.approx([0, 13 * 4, 4 * (17 + 26) / 2])  # the last halfway between two slices
    assert found[:2] == [0, 13]
    assert unseen == [False, False, False, True, False, False]
    assert hu[4:] == [-1000, -1000] and found[4:] == [0, 0]  # beside the scan there is air


def test_lesions_stay_in_their_organ_and_cysts_are_no_tumours(volumes: list[Volume]) -> None:
    hu, label = (torch.from_numpy(x)[None, None] for x in abdomen(0))
    hu, label = hu.float(), label.long()
    label[label == TUMOR] = 1
    outcomes = set()
    for seed in range(40):
        changed, grown = with_lesions(Chance.seeded(CPU, seed), hu, label, SPACING)
        elsewhere = label != 1  # the only one of HOSTS that is there
        assert torch.equal(changed[elsewhere], hu[elsewhere]) and torch.equal(grown[elsewhere], label[elsewhere])
        assert set(np.unique(grown).tolist()) <= {0, 1, 5, TUMOR, IGNORE}
        outcomes.add((not torch.equal(changed, hu), bool((grown == TUMOR).any())))
    assert 5 not in HOSTS
    assert outcomes == {(False, False), (True, False), (True, True)}  # no host, a cyst, a tumour


def test_blur_is_a_gaussian() -> None:
    x = np.random.default_rng(0).normal(size=(9, 11, 13)).astype(np.float32)
    expected = ndimage.gaussian_filter(x, 1.0, truncate=2.5, mode="nearest")
    np.testing.assert_allclose(blur(torch.from_numpy(x)[None, None], 1.0)[0, 0], expected, atol=1e-6)
