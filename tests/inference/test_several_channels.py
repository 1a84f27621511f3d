"""Networks of several channels, and of other images than CT: files, arrays and the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.card import Channel
from inference.cards import read_cards, ways_of, which_are_ct
from inference.command.cli import main
from inference.errors import DeviceError, ScanError, WeightsError
from inference.formats.cases import Case
from inference.formats.geometry import BESIDE
from inference.formats.hounsfield import as_they_are
from inference.formats.reading import read_scan
from inference.given import checked_scan, scan_of
from inference.options import DENSE
from inference.predictor import Predictor
from inference.record import Record
from inference.scan import Grid, Scan
from inference.task import _fitting
from tests.inference.cards import make_card
from tests.made.networks import write_model

SPACING = (3.0, 2.0, 2.0)
Save = Callable[..., Path]


def test_what_is_no_ct_is_taken_as_it_is() -> None:
    voxels = np.array([0.0, 5000.0, np.nan, -7.0], np.float32).reshape(1, 2, 2)
    found, odd = as_they_are(voxels)
    assert found.ravel().tolist() == [0, 5000, 0, -7]
    assert odd == ["1 voxel has no value (NaN): taken as 0"]
    assert np.isnan(voxels[0, 1, 0])  # not written to
    assert as_they_are(np.full((3, 3, 3), 4, np.int16))[1] == ["every voxel is 4: a constant image"]
    for value, cause in ((np.inf, "infinite"), (np.nan, "has no value")):
        with pytest.raises(ScanError, match=cause):
            as_they_are(np.full((3, 3, 3), value))


def test_a_reader_asks_for_hu_only_where_there_is_ct(blob: np.ndarray, save_scan: Save, tmp_path: Path) -> None:
    ct = save_scan(tmp_path / "x_0000.nii.gz", blob, SPACING)
    mr = save_scan(tmp_path / "x_0001.nii.gz", blob + 1024, SPACING)
    scan = read_scan([ct, mr], ct=(True, False))
    assert scan.checked and not scan.warnings
    assert [int(channel.max()) for channel in scan.channels] == [blob.max(), blob.max() + 1024]
    with pytest.raises(ScanError, match=r"x_0001.nii.gz is not CT in HU"):
        read_scan([ct, mr])
    accepted = read_scan([ct, mr], accept=True)
    assert all(warning.startswith("x_0001.nii.gz: ") for warning in accepted.warnings) and accepted.warnings


@pytest.mark.parametrize(
    ("crop", "spacing", "orientation", "cause"),
    [
        (slice(0, 25), SPACING, "LPS", "72 x 60 x 26 and 72 x 60 x 25 voxels"),
        (slice(None), (3.1, 2.0, 2.0), "LPS", "voxels of 2 x 2 x 3 and 2 x 2 x 3.1 mm"),
        (slice(None), SPACING, "RAS", "their affines differ by up to 144"),
    ],
)
def test_channels_that_do_not_lie_on_one_grid(
    crop: slice,
    spacing: tuple[float, ...],
    orientation: str,
    cause: str,
    blob: np.ndarray,
    save_scan: Save,
    tmp_path: Path,
) -> None:
    files = [
        save_scan(tmp_path / "x_0000.nii.gz", blob, SPACING),
        save_scan(tmp_path / "x_0001.nii.gz", blob[crop], spacing, orientation),
    ]
    with pytest.raises(ScanError, match=f"x_0000.nii.gz and x_0001.nii.gz do not lie on one grid: {cause}"):
        read_scan(files)


def test_an_array_of_channels(blob: np.ndarray) -> None:
    both = np.stack([blob, blob + 1024])
    scan = checked_scan(scan_of(both, SPACING, "LPS", channels=2), False, (True, False))
    assert scan.grid.shape == blob.shape and len(scan.channels) == 2
    with pytest.raises(ScanError, match="channel 1: the array is not CT in HU"):
        checked_scan(scan_of(both, SPACING, "LPS", channels=2), False, (True, True))
    for given, channels in ((blob, 2), (both, 1), (both, 3)):
        with pytest.raises(ValueError, match="expected a"):
            scan_of(given, SPACING, "LPS", channels=channels)
    with pytest.raises(ScanError, match="the scan has 1 channels, and the networks take 2"):
        checked_scan(scan_of(blob, SPACING, "LPS"), False, (True, False))


def test_networks_of_one_run_take_the_same_channels(tiny_weights: Path, tmp_path: Path) -> None:
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    path = weights / "tumor" / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"channels": [*card["channels"], {"name": "PET", "normalise": "zscore"}]}))
    with pytest.raises(WeightsError, match="organ 1, tumor 2"):
        read_cards(weights, None)
    path.write_text(json.dumps(card | {"channels": [{"name": "MR", "normalise": "zscore"}]}))
    cards = read_cards(weights, None)
    assert which_are_ct(cards) == (True,)
    assert which_are_ct(cards[1:]) == (False,)


def test_the_memory_of_each_channel_is_estimated_by_its_own_type(
    tiny_weights: Path, blob: np.ndarray, save_scan: Save, tmp_path: Path
) -> None:
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    for path in weights.glob("*/card.json"):  # two networks: the first does not free the voxels
        card = json.loads(path.read_text())
        path.write_text(json.dumps(card | {"channels": [*card["channels"], {"name": "PET", "normalise": "zscore"}]}))
    predictor = Predictor(weights, plan="dense", max_memory=10**12)

    def estimated(*types: type) -> float:
        files = [
            save_scan(tmp_path / f"x_{number:04d}.nii", blob.astype(kind), SPACING) for number, kind in enumerate(types)
        ]
        record = Record()
        _fitting(predictor, Case("x", tuple(files), (tmp_path / "out.nii.gz",)), record, predictor.ways, None)
        assert record.memory_estimate_mb
        return record.memory_estimate_mb

    whole = estimated(np.int16, np.int16)
    assert whole < estimated(np.int16, np.float32) == estimated(np.float32, np.float32)
    fine = Scan((), Grid.of((800, 800, 800), (0.1, 0.1, 0.1), "LPS"), voxel_bytes=(4, 9))  # little to the networks
    need = predictor.budget.need(fine, predictor.ways, (), 10**12)
    assert need == predictor.budget.base + 800**3 * (4 + 9 + BESIDE)  # once the second channel is read beside the first


def test_a_body_is_not_looked_for_in_mr() -> None:
    card = make_card()
    object.__setattr__(card, "channels", (Channel("T1", "zscore"),))
    assert ways_of([card], "dense", 0.5) == (DENSE,)
    with pytest.raises(DeviceError, match="plan abdomen finds the body in CT, and the first channel of network organ"):
        ways_of([card], "abdomen", 0.5)


@pytest.mark.slow
def test_the_command_segments_cases_of_two_channels(
    blob: np.ndarray, save_scan: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from inference.export.convert import export

    schemes = {"normalization_schemes": ["CTNormalization", "ZScoreNormalization"], "use_mask_for_norm": [False, True]}
    export(write_model(tmp_path / "model", channels=("CT", "PET"), configuration=schemes), tmp_path / "nets" / "both")
    shutil.rmtree(tmp_path / "model")
    pet = np.abs(blob) * np.float32(0.02)
    files = [
        save_scan(tmp_path / "in" / "x_0000.nii.gz", blob, SPACING),
        save_scan(tmp_path / "in" / "x_0001.nii.gz", pet, SPACING),
    ]
    save_scan(tmp_path / "in" / "y_0000.nii.gz", blob, SPACING)
    arguments: list[str | Path] = [tmp_path / "in", tmp_path / "out", "--weights", tmp_path / "nets", "--device", "cpu"]
    assert main(arguments) == 8
    assert "channel 0001 (PET) of y is missing" in capfd.readouterr().err
    (tmp_path / "in" / "y_0000.nii.gz").unlink()
    assert main([*arguments, "--resume"]) == 0
    record = json.loads((tmp_path / "out" / "x.json").read_text())
    assert "x: kept" in capfd.readouterr().out
    save_scan(files[1], pet + 1, SPACING)
    assert main([*arguments, "--resume"]) == 0
    again = json.loads((tmp_path / "out" / "x.json").read_text())
    assert again["status"] == "done" and again["input_sha256"] != record["input_sha256"]

    predictor = Predictor(tmp_path / "nets", device="cpu")
    assert predictor.ct == (True, False)
    labels = predictor(np.stack([blob, pet]), SPACING, "LPS")
    counted = {str(value): int((labels == value).sum()) for value in range(1, 5) if (labels == value).any()}
    assert counted == {value: found["voxels"] for value, found in record["labels"].items()}
