"""A training of a few steps on scans that the test makes, from packed scans to an exported network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from inference.card_file import read_card  # noqa: E402
from inference.machine import computes  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.training.conftest import SPEC, TINY  # noqa: E402
from training.augment import Patches  # noqa: E402
from training.losses import dice_and_cross_entropy  # noqa: E402
from training.packed import write_spec  # noqa: E402
from training.plans import STUDENTS  # noqa: E402
from training.settings import SIZES, Settings, Size  # noqa: E402
from training.train import Trainer, computes_bfloat16, open_volumes, train  # noqa: E402
from training.unet import FILTER, UNet, folded  # noqa: E402

CPU = torch.device("cpu")
SMALL = (Size((12, 20, 24), 2, early=0.7, norms=0.5, late=0.5), Size((16, 16, 24), 1, early=0.3, norms=0.5, late=0.5))
SETTINGS = Settings(
    steps=3,
    student=TINY,
    sizes=SMALL,
    norm_batches=4,
    consistency=1.0,
    bfloat16=computes_bfloat16(CPU),
    save_seconds=0.0,
)


def make_trainer(packed: Path, out: Path, settings: Settings) -> Trainer:
    out.mkdir(exist_ok=True)
    volumes = open_volumes(packed, list(SPEC.shares), CPU)
    patches = Patches(volumes, [1.0, 1.0], settings.voxels(), lesions=0.3)
    return Trainer(settings, patches, patches, out, CPU)


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


@pytest.fixture(scope="module")
def trained(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of three steps, with frozen norms from the third on."""
    out = tmp_path_factory.mktemp("trained")
    train(packed, SPEC, out, SETTINGS, CPU, None)
    return out


def test_three_steps_leave_a_network_without_norms_and_its_scores(packed: Path, trained: Path) -> None:
    last = load(trained / "last.pt")
    assert (last["steps"], last["frozen"]) == (3, True)
    assert [json.loads(line)["step"] for line in (trained / "log.jsonl").read_text().splitlines()] == [1, 2, 3]
    batch_norms, plain = load(trained / "bn.pt"), load(trained / "plain.pt")
    assert all(value.dtype == torch.float16 and bool(torch.isfinite(value).all()) for value in plain.values())
    assert not any(".norm." in name for name in plain)
    for name, value in folded(batch_norms).items():
        torch.testing.assert_close(plain[name].float(), value, rtol=0.02, atol=0.02)
    scores = json.loads((trained / "val.json").read_text())
    assert list(scores) == ["held_out"] and set(scores["held_out"]["labels"]) == {"1", "5", "14"}
    assert 0 <= scores["held_out"]["organs"] <= 100
    assert not list(trained.glob("*.tmp"))


@pytest.mark.slow
def test_it_is_exported_as_it_is(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("nnunetv2")
    from training.export import export_student

    monkeypatch.setitem(STUDENTS, "tiny", TINY)
    export_student(trained / "plain.pt", tmp_path / "unified", "tiny", trained_on="three steps")
    card = read_card(tmp_path / "unified")
    assert (card.spacing, len(card.labels), card.window_multiple) == (TINY.spacing, 15, (4, 4, 4))


@pytest.mark.slow
def test_after_a_kill_it_goes_on_as_if_nothing_had_been(packed: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=4, freeze=0.4)
    for stop in (1, 3):  # before the norms are frozen, and after
        out = tmp_path / f"stopped-{stop}"
        first = make_trainer(packed, out, settings)
        for _ in range(stop):
            first.step()
        first.save()
        again = make_trainer(packed, out, settings)
        assert (again.steps, again.frozen) == (stop, stop == 3)
        assert again.seconds() >= first.seconds() - 5
        again.run()
    whole = make_trainer(packed, tmp_path / "whole", settings)
    whole.run()
    for name, value in load(tmp_path / "whole" / "bn.pt").items():
        for stop in (1, 3):
            assert torch.equal(load(tmp_path / f"stopped-{stop}" / "bn.pt")[name], value), (stop, name)


def test_frozen_norms_keep_their_statistics_and_the_rest_learns(packed: Path, tmp_path: Path) -> None:
    trainer = make_trainer(packed, tmp_path, replace(SETTINGS, steps=10, freeze=0.15))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.step()
    trainer.step()
    assert not trainer.frozen
    trainer.step()  # freezes first
    assert trainer.frozen
    norm = trainer.network.norms()[0]
    mean = norm.get_buffer("running_mean").clone()
    assert int(norm.get_buffer("num_batches_tracked")) == SETTINGS.norm_batches
    trainer.step()
    assert torch.equal(norm.get_buffer("running_mean"), mean)
    changed = {name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name, _ in trainer.network.named_parameters()} <= changed


def test_the_statistics_are_the_mean_over_batches_of_what_the_network_sees(packed: Path, tmp_path: Path) -> None:
    trainer = make_trainer(packed, tmp_path, replace(SETTINGS, bfloat16=False, steps=1, freeze=-1.0, learning_rate=0.0))
    seen = []
    trainer.network.get_submodule("encoder.stages.0.0.convs.0.conv").register_forward_hook(
        lambda _, __, output: seen.append(output.detach().mean((0, 2, 3, 4)))
    )
    trainer.step()
    taken = torch.stack(seen[: SETTINGS.norm_batches]).mean(0)
    torch.testing.assert_close(trainer.network.norms()[0].running_mean, taken, rtol=1e-3, atol=1e-4)


def test_it_begins_with_the_weights_it_is_given(packed: Path, trained: Path, tmp_path: Path) -> None:
    trainer = make_trainer(packed, tmp_path / "next", SETTINGS)
    trainer.start_from(trained / "bn.pt")
    for name, value in load(trained / "bn.pt").items():
        assert torch.equal(trainer.network.state_dict()[name], value.float())
    other = replace(TINY, features=(8, 16, 32))
    torch.save(UNet(other, 15).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not the bn\.pt of this student"):
        trainer.start_from(tmp_path / "other.pt")
    (tmp_path / "damaged.pt").write_bytes((trained / "bn.pt").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"damaged\.pt cannot be read"):
        trainer.start_from(tmp_path / "damaged.pt")
    with pytest.raises(ValueError, match="another student's run"):
        make_trainer(packed, trained, replace(SETTINGS, student=other))


def test_it_goes_on_from_weights_without_norms(packed: Path, trained: Path, tmp_path: Path) -> None:
    trainer = make_trainer(packed, tmp_path / "next", replace(SETTINGS, bfloat16=False))
    plain = load(trained / "plain.pt")
    plain["encoder.stages.1.0.convs.1.conv.weight"] *= 0.01  # as those of deep filters
    weights = plain | {"encoder.stages.0.0.convs.0.all_modules.0.weight": torch.zeros(1)}
    torch.save({"network_weights": weights}, tmp_path / "checkpoint_final.pth")
    trainer.start_from(tmp_path / "checkpoint_final.pth")
    first = trainer.network.state_dict()
    torch.save(plain, tmp_path / "plain.pt")
    trainer.start_from(tmp_path / "plain.pt")
    assert all(torch.equal(value, first[name]) for name, value in trainer.network.state_dict().items())
    again = folded(trainer.network.state_dict())
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value.float(), rtol=1e-4, atol=1e-5)
    for name, value in trainer.network.named_parameters():
        if name.endswith(".conv.weight"):  # a step changes all filters by the same share of themselves
            size = value.detach().flatten(1).square().mean(1).sqrt()
            torch.testing.assert_close(size, torch.full_like(size, FILTER))
    norm, image = trainer.network.norms()[0], trainer._for_norms(0)
    assert trainer.network.training and norm.training
    with torch.no_grad():  # the norms are those of what is seen: normalising by a batch's own changes little
        trained_on, frozen = trainer.network(image)[0], trainer.network.eval()(image)[0]
    assert (trained_on - frozen).abs().mean() < 0.25 * frozen.std()
    assert norm.get_buffer("running_var").min() > 0


def test_heads_that_an_export_has_not_learn_alone_before_the_rest(packed: Path, trained: Path, tmp_path: Path) -> None:
    trainer = make_trainer(packed, tmp_path / "next", replace(SETTINGS, bfloat16=False))
    plain = load(trained / "plain.pt")
    coarse = {name for name in plain if "seg_layers" in name and "seg_layers.1" not in name}
    torch.save(plain | {name: torch.zeros_like(plain[name]) for name in coarse}, tmp_path / "exported.pt")
    trainer.start_from(tmp_path / "exported.pt")
    again = folded(trainer.network.state_dict())
    for name in plain.keys() - coarse:
        torch.testing.assert_close(again[name], plain[name].float(), rtol=1e-4, atol=1e-5)
    image, label = trainer._seen(0)
    logits = trainer.network.eval()(image, 2)[1].detach()
    label = label[:, 1::2, 1::2, 1::2]
    weight = torch.ones(15)
    taught = dice_and_cross_entropy(logits, label, weight)
    assert taught < 0.8 * dice_and_cross_entropy(torch.zeros_like(logits), label, weight)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_weights(packed: Path, tmp_path: Path) -> None:
    trainer = make_trainer(packed, tmp_path, SETTINGS)
    trainer.save()
    kept = (tmp_path / "plain.pt").read_bytes()
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        trainer.run()
    assert (tmp_path / "plain.pt").read_bytes() == kept


def test_coarse_voxels_show_as_many_millimetres_in_fewer() -> None:
    coarse = Settings(steps=1, spacing=(5.0, 4.0, 4.0))
    assert [coarse.shape(size) for size in SIZES] == [(48, 48, 64), (64, 64, 80), (48, 64, 80)]
    assert [Settings(steps=1).shape(size) for size in SIZES] == [size.shape for size in SIZES]


def test_the_rate_warms_up_and_falls() -> None:
    settings = Settings(steps=1000, learning_rate=1.0)
    rates = [settings.rate(step / 1000, step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01, rel=0.01) and rates[0] < rates[50] < rates[99]
    assert all(later < earlier for earlier, later in pairwise(rates[99:]))
    assert rates[-1] == pytest.approx(1e-3)
    for budget in ({}, {"minutes": 1.0, "steps": 1}, {"steps": 0}, {"minutes": -1.0}):
        with pytest.raises(ValueError, match="a budget of minutes or of steps, above 0"):
            Settings(**budget)


@pytest.mark.slow
def test_the_command_trains_in_what_the_processor_computes_in(packed: Path, tmp_path: Path) -> None:
    """The student of the table, on voxels so large that its patches are small."""
    write_spec(packed, SPEC)
    command: list[str | Path] = [sys.executable, "-m", "training.train", packed, tmp_path, "--steps", "1"]
    flags = ["--spacing", "40", "32", "32", "--threads", "1"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trains in bfloat16" if computes_bfloat16(CPU) else "trains in float32")
    assert load(tmp_path / "last.pt")["steps"] == 1
    assert len(load(tmp_path / "plain.pt")) == 52


def test_a_part_that_was_not_copied_stops_the_run_at_once(packed: Path, tmp_path: Path) -> None:
    more = replace(SPEC, shares=SPEC.shares | {"gone": 1.0}, late=SPEC.late | {"gone": 1.0})
    for spec in (more, replace(SPEC, validation=["held_out", "gone"])):
        with pytest.raises(ValueError, match="lacks 1 of 4 scans, gone among them: copy every part"):
            train(packed, spec, tmp_path, SETTINGS, CPU, None)
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_where_bfloat16_is_emulated_it_trains_in_float32() -> None:
    """As where PyTorch is held to AVX2: its convolutions then take 180 times as long in bfloat16."""
    ask = "import torch; from training.train import computes_bfloat16; print(computes_bfloat16(torch.device('cpu')))"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert done.stdout == "False\n"
    assert computes("bf16") or not computes_bfloat16(CPU)
