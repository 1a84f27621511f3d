"""Rendering, tumours, loss and loop on a torso of blocks that the test makes itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inference.card import read_card  # noqa: E402
from training.anatomy import Anatomy, Tissue, build_anatomy, merge_classes, tissue_of  # noqa: E402
from training.export import export  # noqa: E402
from training.labels import IGNORE, TUMOR  # noqa: E402
from training.losses import disagreement, partial_label_loss  # noqa: E402
from training.network import (  # noqa: E402
    averaged,
    build_student,
    count_outputs,
    fold_norms,
    has_norms,
    lowered,
    read_state,
    with_outputs,
)
from training.patch import SPACING, Patch, for_outputs  # noqa: E402
from training.plans import coarser  # noqa: E402
from training.result_folder import write_result_folder  # noqa: E402
from training.rounding import Rounding  # noqa: E402
from training.sources import Source  # noqa: E402
from training.synthesis import Renderer  # noqa: E402
from training.train import learning_rate, train  # noqa: E402
from training.tumors import HOSTS, grow_lesion  # noqa: E402

PATCH = (12, 64, 80)


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
    return build_anatomy("blocks", tissue, np.zeros(tissue.shape, bool), (3.0, 3.0, 3.0), merge_classes())


def test_the_same_seed_gives_the_same_patch_and_another_another(anatomy: Anatomy) -> None:
    renderer = Renderer(anatomy)
    first, again, other = (renderer.render(np.random.default_rng(seed), PATCH) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)


def test_patches_hold_what_the_map_holds_in_the_networks_own_range(anatomy: Anatomy) -> None:
    renderer = Renderer(anatomy)
    patches = [renderer.render(np.random.default_rng(seed), PATCH) for seed in range(12)]
    seen = {int(value) for patch in patches for value in np.unique(patch.label)}
    assert {0, Tissue.LIVER, Tissue.SPLEEN, Tissue.AORTA, TUMOR} <= seen
    assert seen <= {0, Tissue.LIVER, Tissue.SPLEEN, Tissue.AORTA, TUMOR, IGNORE}
    for patch in patches:
        assert patch.image.shape == patch.label.shape == PATCH
        assert patch.image.dtype == np.float32
        assert patch.label.dtype == np.uint8
        assert patch.image.min() >= (-160 - 80) / 70 - 1e-5
        assert patch.image.max() <= (240 - 80) / 70 + 1e-5


def test_organs_differ_from_fat_as_they_do_on_ct(anatomy: Anatomy) -> None:
    renderer = Renderer(anatomy)
    liver, elsewhere = [], []
    for seed in range(12):
        patch = renderer.render(np.random.default_rng(seed), PATCH)
        liver.extend(patch.image[patch.label == Tissue.LIVER][::50])
        elsewhere.extend(patch.image[patch.label == 0][::50])
    assert np.median(liver) * 70 + 80 > 30  # HU
    assert np.percentile(elsewhere, 20) * 70 + 80 < -60


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


def test_the_loss_falls_where_the_answer_is_right_and_ignores_what_is_unknown() -> None:
    label = torch.tensor([[[[0, 1, 2, IGNORE]]]], dtype=torch.uint8)
    merge = torch.arange(3, dtype=torch.uint8)[None]
    right = torch.full((1, 3, 1, 1, 4), -9.0)
    for at, channel in enumerate((0, 1, 2, 0)):
        right[0, channel, 0, 0, at] = 9.0
    assert float(partial_label_loss(right, label, merge)) < 0.01
    wrong_where_unknown = right.clone()
    wrong_where_unknown[..., 3] = torch.tensor([-9.0, 9.0, -9.0])[:, None, None]
    assert partial_label_loss(wrong_where_unknown, label, merge) == partial_label_loss(right, label, merge)
    assert float(partial_label_loss(-right, label, merge)) > 1


def test_the_smaller_a_class_the_more_a_voxel_of_it_counts_where_classes_are_balanced() -> None:
    label = torch.zeros((1, 1, 1, 100), dtype=torch.uint8)
    label[..., :10] = 1
    known = torch.from_numpy(merge_classes())[None, :2]
    right = torch.full((1, 2, 1, 1, 100), -9.0).scatter(1, label[:, None].long(), 9.0)
    organ_lost, as_much_else = right.clone(), right.clone()
    organ_lost[..., :10] *= -1
    as_much_else[..., 50:60] *= -1

    def ratio(balance: float) -> float:
        lost, other = (partial_label_loss(x, label, known, balance) for x in (organ_lost, as_much_else))
        return float(lost / other)

    assert ratio(0.0) < 1.5 < ratio(0.5) < ratio(1.0)  # the Dice term is above 1 at any balance
    assert ratio(1.0) > 5


def test_each_network_of_the_pair_learns_its_own_labels() -> None:
    label = np.array([0, 1, TUMOR, IGNORE], np.uint8).reshape(1, 1, 4)
    patch = Patch(np.zeros((1, 1, 4), np.float32), label, merge_classes((0, 10)))
    organ, tumor, unified = (for_outputs(patch, outputs) for outputs in ("organ", "tumor", "unified"))
    assert organ.label.ravel().tolist() == [0, 1, IGNORE, IGNORE] and organ.merge.tolist() == patch.merge[:14].tolist()
    assert tumor.label.ravel().tolist() == [0, 0, 1, IGNORE] and tumor.merge.tolist() == [0, 1]
    assert unified is patch


def test_a_coarse_patch_shows_as_many_mm_in_fewer_voxels(anatomy: Anatomy) -> None:
    assert coarser((32, 128, 192), 2) == (32, 64, 96)
    assert coarser((24, 112, 160), 4) == (24, 48, 48)  # two voxels at the lowest stage would be too few
    fine = Renderer(anatomy).render(np.random.default_rng(2), (12, 128, 192))
    coarse = Renderer(anatomy).render(np.random.default_rng(2), (12, 64, 96), SPACING * [1, 2, 2])
    alike = [np.isin(label, (IGNORE, TUMOR), invert=True) for label in (fine.label[:, ::2, ::2], coarse.label)]
    both = alike[0] & alike[1]
    assert both.mean() > 0.3 and len(np.unique(coarse.label[both])) > 2
    assert (fine.label[:, ::2, ::2] == coarse.label)[both].mean() > 0.95


def test_a_patch_is_drawn_to_what_the_larger_one_says_and_not_the_other_way() -> None:
    torch.manual_seed(0)
    outer, inner = torch.randn((2, 1, 3, 4, 5, 6)).requires_grad_()
    weight = torch.ones((4, 5, 6))
    assert disagreement(outer, outer, weight).item() == 0
    apart = disagreement(inner, outer, weight)
    to_inner, to_outer = torch.autograd.grad(apart, (inner, outer), allow_unused=True)
    assert apart > 0 and to_outer is None
    assert disagreement(inner - to_inner, outer, weight) < apart
    weight[:2] = 0  # what counts nothing draws nothing
    assert not torch.autograd.grad(disagreement(inner, outer, weight), inner)[0][..., :2, :, :].any()


def test_an_organ_that_a_reference_does_not_know_may_be_found_in_its_background() -> None:
    label = torch.zeros((1, 1, 1, 4), dtype=torch.uint8)
    unknown = torch.from_numpy(merge_classes((0, 2)))[None, :3]
    finds_organ_2 = torch.full((1, 3, 1, 1, 4), -9.0)
    finds_organ_2[:, 2] = 9.0
    assert float(partial_label_loss(finds_organ_2, label, unknown)) < 0.01
    finds_organ_1 = finds_organ_2[:, [0, 2, 1]]
    assert float(partial_label_loss(finds_organ_1, label, unknown)) > 1


def test_a_network_with_one_output_more_finds_what_it_found() -> None:
    network = build_student(14)
    grown = build_student(15)
    grown.load_state_dict(with_outputs(network.state_dict(), 15))
    assert count_outputs(grown.state_dict()) == 15
    volume = torch.randn(1, 1, 16, 32, 32)
    with torch.inference_mode():
        before, after = network(volume), grown(volume)
    assert torch.allclose(before, after[:, :14], atol=1e-5)
    assert torch.equal(before.argmax(1), after.argmax(1))


def test_weights_are_averaged_and_a_channels_logit_is_lowered() -> None:
    low, high = {"decoder.seg_layers.3.bias": torch.zeros(3)}, {"decoder.seg_layers.3.bias": torch.ones(3)}
    state = lowered(averaged([low, high, high, high]), {1: 0.5})
    assert state["decoder.seg_layers.3.bias"].tolist() == [0.75, 0.25, 0.75]


def test_folded_norms_answer_alike_where_their_statistics_were_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_student(15).eval()
    for parameter in network.parameters():  # norms and biases as training leaves them
        parameter.data += 0.1 * parameter.data.abs().mean() * torch.randn_like(parameter)
    image = torch.randn(1, 1, 16, 64, 64)
    state = fold_norms(network.state_dict(), [image])
    assert has_norms(network.state_dict()) and not has_norms(state)
    plain = build_student(15, norms=False).eval()
    plain.load_state_dict(state)
    with torch.inference_mode():
        expected, found = network(image), plain(image)
    assert torch.allclose(expected, found, atol=1e-3 * float(expected.abs().max()))
    # Exported and read again it is the same network, and the card says that its windows may have any size.
    write_result_folder(state, tmp_path / "model", "unified")
    export(tmp_path / "model", tmp_path / "unified")
    plain.load_state_dict(read_state(tmp_path / "unified"))
    with torch.inference_mode():
        assert torch.equal(plain(image), found)
    assert read_card(tmp_path / "unified").window_multiple == (8, 16, 16)


def test_rounded_passes_have_levels_and_gradients() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv3d(1, 2, 1, bias=False)
    image = torch.rand(1, 1, 8, 64, 64) * 4 - 1  # 4 / 255 apart
    exact = layer(image)
    rounding = Rounding(layer, [image])
    assert torch.equal(layer(image), exact)
    rounding.on = True
    rounded = layer(image)
    assert not torch.equal(rounded, exact)
    # Half a level of what goes in, but for outliers; a weight alone in its channel is the largest there and stays.
    apart = (rounded - exact).detach().abs().flatten().quantile(0.98)
    assert float(apart) < 0.51 * 4 / 255 * float(layer.weight.detach().abs().max())
    assert len(rounded[0, 0].detach().mul(1e4).round().unique()) <= 256
    rounded.sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.flatten(), image.sum().expand(2), rtol=1e-3, atol=1.0)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [learning_rate(1.0, step / 1000, step) for step in range(1001)]
    assert rates[0] < rates[10] < rates[29]
    assert all(later < earlier for earlier, later in pairwise(rates[30:]))
    assert rates[-1] == 0


def test_a_training_goes_on_where_it_was(anatomy: Anatomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.train.SIZES", [((24, 64, 64), 1, 1.0)])
    sources: list[tuple[Source, float]] = [(Renderer(anatomy), 1.0)]
    train(tmp_path, sources, steps=1, workers=0)
    first = torch.load(tmp_path / "last.pt", weights_only=True)
    result = train(tmp_path, sources, minutes=first["minutes"] + 1e-6, workers=0)
    second = torch.load(tmp_path / "last.pt", weights_only=True)
    assert first["step"] == 1 and second["step"] == 2
    assert second["minutes"] > first["minutes"]
    # Norms are folded on patches up to the plan's; a network without them trains on wider ones as well.
    monkeypatch.setattr("training.train.SIZES", [((24, 64, 64), 1, 0.01), ((32, 128, 208), 1, 0.99)])
    plain = train(tmp_path / "plain", sources, steps=1, start=result, workers=0, plain=True, rounded=True)
    assert torch.load(tmp_path / "plain" / "last.pt", weights_only=True)["step"] == 1
    with pytest.raises(ValueError, match="minutes or of steps"):
        train(tmp_path / "plain", sources)
    assert not has_norms(torch.load(plain, weights_only=True))
    state = torch.load(result, weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    build_student(15).load_state_dict(state)


def test_spacing_of_a_patch_is_the_students() -> None:
    assert SPACING.tolist() == [4.0, 1.2, 1.2]
