"""Rendering and tumours on a torso of blocks that the test makes itself."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from training.labels import IGNORE, TUMOR
from training.synthesis.anatomy import Anatomy, Tissue, build_anatomy, tissue_of
from training.synthesis.render import Renderer
from training.synthesis.tumors import HOSTS, grow_lesion

SHAPE, SPACING = (20, 64, 80), np.array([3.0, 3.0, 3.0])


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """Liver, spleen, aorta, vertebrae and muscle as boxes; (z, y, x) = (60, 90, 120) at 3 mm."""
    tissue = np.zeros((60, 90, 120), np.uint8)
    tissue[:, 10:80, 10:110] = Tissue.FAT
    tissue[:, 60:80, 10:110] = Tissue.MUSCLE
    tissue[:, 62:76, 50:70] = Tissue.BONE
    tissue[10:50, 20:55, 15:55] = Tissue.LIVER
    tissue[15:45, 30:55, 85:105] = Tissue.SPLEEN
    tissue[:, 52:60, 60:68] = Tissue.AORTA
    return build_anatomy("blocks", tissue, np.zeros(tissue.shape, bool), (3.0, 3.0, 3.0))


def test_the_same_seed_gives_the_same_volume_and_another_another(anatomy: Anatomy) -> None:
    renderer = Renderer(anatomy)
    first, again, other = (renderer.render(np.random.default_rng(seed), SHAPE, SPACING) for seed in (5, 5, 6))
    assert np.array_equal(first.hu, again.hu)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.hu, other.hu)


def test_volumes_hold_what_the_map_holds(anatomy: Anatomy) -> None:
    renderer = Renderer(anatomy)
    volumes = [renderer.render(np.random.default_rng(seed), SHAPE, SPACING) for seed in range(12)]
    seen = {int(value) for volume in volumes for value in np.unique(volume.label)}
    assert {0, Tissue.LIVER, Tissue.SPLEEN, Tissue.AORTA, TUMOR} <= seen
    assert seen <= {0, Tissue.LIVER, Tissue.SPLEEN, Tissue.AORTA, TUMOR, IGNORE}
    for volume in volumes:
        assert volume.hu.shape == volume.label.shape == SHAPE
        assert volume.hu.dtype == np.float32
        assert volume.label.dtype == np.uint8
        assert -1200 < volume.hu.min() < -80 and 100 < volume.hu.max() < 1000


def test_a_short_scan_ends_in_what_nobody_knows(anatomy: Anatomy) -> None:
    renderer = Renderer(anatomy)
    volumes = [renderer.render(np.random.default_rng(seed), SHAPE, SPACING) for seed in range(12)]
    ends = [volume.label[[0, -1]] == IGNORE for volume in volumes]
    assert 0 < sum(bool(end.any()) for end in ends) < len(ends)
    for volume in volumes:
        assert (volume.hu[volume.label == IGNORE] == 80).all()  # 0 for the network


def test_organs_differ_from_fat_as_they_do_on_ct(anatomy: Anatomy) -> None:
    renderer = Renderer(anatomy)
    liver, elsewhere = [], []
    for seed in range(12):
        volume = renderer.render(np.random.default_rng(seed), SHAPE, SPACING)
        liver.extend(volume.hu[volume.label == Tissue.LIVER][::50])
        elsewhere.extend(volume.hu[volume.label == 0][::50])
    assert np.median(liver) > 30
    assert np.percentile(elsewhere, 20) < -60


@pytest.mark.parametrize("host", [Tissue.LIVER, Tissue.SPLEEN])
def test_a_tumour_grows_in_its_host(host: Tissue, anatomy: Anatomy) -> None:
    inside, volumes = 0, []
    for seed in range(20):
        lesion = grow_lesion(np.random.default_rng(seed), anatomy.tissue, np.array([3.0, 3.0, 3.0]), host, 100.0, 1.0)
        assert lesion is not None
        mask = lesion.weight > 0.5
        volumes.append(mask.sum() * 27 / 1000)
        inside += bool((anatomy.tissue[mask] == host).mean() > 0.5) if mask.any() else 0
        assert lesion.weight.min() >= 0
        assert lesion.weight.max() <= 1
    assert inside >= 15
    assert max(volumes) > 5 * max(min(volumes), 0.03)  # ml: from small to large


def test_no_tumour_where_its_host_is_not(anatomy: Anatomy) -> None:
    assert Tissue.PANCREAS in HOSTS
    rng = np.random.default_rng(0)
    assert grow_lesion(rng, anatomy.tissue, np.array([3.0, 3.0, 3.0]), Tissue.PANCREAS, 100.0, 1.0) is None


def test_names_become_tissues() -> None:
    assert tissue_of("kidney_left") == Tissue.LEFT_KIDNEY
    assert tissue_of("portal_vein_and_splenic_vein") == Tissue.PORTAL_VEIN
    assert tissue_of("vertebrae_L1") == Tissue.BONE
    with pytest.raises(ValueError, match="no tissue"):
        tissue_of("unheard of")
