"""A card is read whole or refused, and so are the files that it vouches for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.card_file import read_card
from inference.cards import chosen, labels_of, networks_of, read_cards
from inference.errors import WeightsError
from inference.options import Options
from tests.conftest import ROOT
from tests.made.networks import STRUCTURES

FIELDS: dict[str, Any] = {
    "format": 1,
    "files": {"model.onnx": hashlib.sha256(b"network").hexdigest()},
    "orientation": "LPS",
    "axes": [0, 1, 2],
    "spacing": [4.0, 1.2, 1.2],
    "patch": [32, 128, 192],
    "clip": [-160, 240],
    "mean": 80,
    "std": 70,
    "image_order": 3,
    "logit_order": 1,
    "force_separate_z": None,
    "labels": [{"value": 0, "name": "background"}, {"value": 14, "name": "tumor"}],
    "trained_on": "nothing",
}


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"network")
    (folder / "card.json").write_text(json.dumps(FIELDS | changes))
    return folder


def test_fields_and_checked_files(tmp_path: Path) -> None:
    card = read_card(write(tmp_path / "tumor"))
    assert card.name == "tumor"
    assert card.patch == (32, 128, 192)
    assert [label.value for label in card.labels] == [0, 14]
    assert card.file("model.onnx").read_bytes() == b"network"
    assert card.digest == hashlib.sha256((tmp_path / "tumor" / "card.json").read_bytes()).hexdigest()


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    first = read_card(write(tmp_path / "first" / "organ"))
    own = ("files", "orientation", "axes", "spacing", "patch", "labels", "trained_on")
    second = {name: FIELDS[name] for name in own} | {
        "format": 2,
        "forms": {"f32": ["model.onnx"]},
        "channels": [{"name": "CT", "normalise": "ct", "clip": [-160, 240], "mean": 80, "std": 70}],
        "resample": {"image_order": 3, "logit_order": 1, "force_separate_z": None},
        "decode": "argmax",
    }
    folder = tmp_path / "second" / "organ"
    write(folder)
    (folder / "card.json").write_text(json.dumps(second))
    card = read_card(folder)
    assert replace(card, folder=first.folder, digest=first.digest) == first
    assert card.way == "dense" and card.form("f32") == folder / "model.onnx"
    for changes, cause in (
        ({"depth": 5}, "unknown field depth"),  # it may change what is meant
        ({"decode": "sigmoid"}, "'sigmoid' is not one of argmax, regions"),
        ({"way": "chest"}, "'chest' is not one of abdomen, body, organs, crop, dense"),
        ({"precision": "f64"}, "'f64' is not one of int8"),
        ({"channels": [second["channels"][0] | {"normalise": "log"}]}, "'log' is not one of ct, zscore"),
    ):
        (folder / "card.json").write_text(json.dumps(second | changes))
        with pytest.raises(WeightsError, match=cause):
            read_card(folder)


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    card = read_card(write(tmp_path / "organ"))
    (tmp_path / "organ" / "model.onnx").write_bytes(b"metwork")
    with pytest.raises(WeightsError, match=r"organ/model.onnx is damaged"):
        card.file("model.onnx")


def test_a_file_that_was_not_exported_and_one_that_is_missing(tmp_path: Path) -> None:
    card = read_card(write(tmp_path / "organ"))
    with pytest.raises(WeightsError, match="without model_f16.onnx"):
        card.file("model_f16.onnx")
    (tmp_path / "organ" / "model.onnx").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        card.file("model.onnx")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"format": 3}, "format 3"),
        ({"format": None}, "format None"),
        ({"patch": [32, 128]}, "not a complete card"),
        ({"spacing": None}, "not a complete card"),
        ({"mean": "much"}, "not a complete card"),
        ({"labels": [{"name": "liver"}]}, "not a complete card"),
    ],
)
def test_cards_that_are_not_understood(tmp_path: Path, changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(WeightsError, match=cause):
        read_card(write(tmp_path / "organ", **changes))


def test_missing_and_broken_cards(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="card.json is missing"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_card(tmp_path)


def test_the_tumour_network_comes_after_the_organ_network(tmp_path: Path) -> None:
    write(tmp_path / "tumor")
    write(tmp_path / "organ")
    assert [card.name for card in read_cards(tmp_path, None)] == ["organ", "tumor"]
    assert [card.name for card in read_cards(tmp_path, ["tumor"])] == ["tumor"]


def test_a_value_means_one_thing_in_all_networks(tmp_path: Path) -> None:
    def second(name: str) -> None:
        write(tmp_path / "tumor", labels=[{"value": 0, "name": "background"}, {"value": 13, "name": name}])

    write(tmp_path / "organ", labels=[{"value": 0, "name": "background"}, {"value": 13, "name": "left_kidney"}])
    second("kidney_left")
    assert len(read_cards(tmp_path, None)) == 2
    second("lesion")
    text = "value 13 is left_kidney in network organ and lesion in tumor: choose with --networks"
    with pytest.raises(WeightsError, match=text):
        read_cards(tmp_path, None)
    assert len(read_cards(tmp_path, ["tumor"])) == 1


def test_a_folder_of_one_network_by_another_name(tmp_path: Path) -> None:
    write(tmp_path / "mine")
    assert [card.name for card in read_cards(tmp_path, None)] == ["mine"]
    with pytest.raises(WeightsError, match="organ"):
        read_cards(tmp_path, ["organ"])


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "liver")
    write(tmp_path / "vessels")
    with pytest.raises(WeightsError, match=f"there is no network organs in {tmp_path}, only liver, vessels"):
        read_cards(tmp_path, ["liver", "organs"])


def test_a_folder_without_networks(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no network"):
        read_cards(tmp_path, None)
    write(tmp_path / "liver")
    with pytest.raises(WeightsError, match="liver is a network itself: give the folder that it is in"):
        read_cards(tmp_path / "liver", None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "plans.json").touch()
    with pytest.raises(WeightsError, match="model is a result folder of nnU-Net: export it"):
        read_cards(tmp_path / "model", None)


@pytest.mark.parametrize(
    "names",
    [[], ["organ", "organ"], ["../organ"], ["/organ"], ["organ/"], ["organ/."], ["."], [".."], [""], ["a\0b"], [1]],
)
def test_names_that_are_none(names: Any, tmp_path: Path) -> None:
    write(tmp_path / "organ")
    with pytest.raises(WeightsError, match="no network was named|named 2 times|not the name of a network"):
        read_cards(tmp_path / "organ" / "..", names)


def test_a_name_in_a_string_is_that_one_name(tmp_path: Path) -> None:
    write(tmp_path / "organ")
    assert [card.name for card in read_cards(tmp_path, "organ")] == ["organ"]


def test_weights_that_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, cause in (("absent", "No such file"), ("file", "Not a directory")):
        with pytest.raises(WeightsError, match=f"{name} cannot be read: {cause}"):
            read_cards(tmp_path / name, None)


def test_only_networks_run_that_a_chosen_label_needs(named_weights: Path) -> None:
    def networks(*labels: str, plan: str) -> list[str]:
        cards, ways = networks_of(Options(named_weights, labels=labels, plan=plan), named_weights)
        assert [way.name for way in ways] == [plan] * len(cards)
        return [card.name for card in cards]

    assert networks("liver", plan="dense") == networks("liver", plan="abdomen") == ["organ"]
    assert networks("organ_1", plan="dense") == ["tumor"]
    assert networks("organ_1", plan="abdomen") == ["organ", "tumor"]  # which looks around what the first finds
    assert networks("organ_1", "aorta", plan="dense") == ["organ", "tumor"]


def test_labels_are_chosen_in_any_spelling_and_unknown_ones_refused(named_weights: Path) -> None:
    cards = read_cards(named_weights, None)
    assert labels_of(cards, ["kidney_right", "Liver"]) == labels_of(cards, ["liver", "right kidney"])
    assert labels_of(cards, ["kidney_right", "Liver"]) == {1: "liver", 2: "right_kidney"}
    assert chosen(cards, ["kidney_right", "Liver"]) == ["liver", "right_kidney"]
    everything = list(labels_of(cards, None).values())
    assert everything == [*STRUCTURES.values(), "organ_1"]
    assert chosen(cards, None) is None and chosen(cards, everything[::-1]) is None
    with pytest.raises(WeightsError, match="^no network of this run has a label heart, only liver, right_kidney, "):
        labels_of(cards, ["liver", "heart"])


# Permissions do not bind root, unless it gives up the two capabilities that make it so.
BOUND = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search")


@pytest.mark.parametrize(
    ("closed", "mode", "named"),
    [
        (".", 0o000, "."),
        (".", 0o100, "."),  # to be searched, not listed
        (".", 0o400, "organ/card.json"),  # to be listed, not searched
        ("organ", 0o000, "organ/card.json"),
        ("organ", 0o400, "organ/card.json"),
        ("organ/card.json", 0o000, "organ/card.json"),
        ("organ/model.onnx", 0o000, "organ/model.onnx"),
    ],
)
def test_weights_that_this_user_may_not_read(
    closed: str, mode: int, named: str, tmp_path: Path, tiny_weights: Path
) -> None:
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may read everything, and there is no setpriv to change that")
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    scan = tmp_path / "x_0000.nii.gz"
    scan.touch()
    before = (weights / closed).stat().st_mode
    (weights / closed).chmod(mode)
    try:
        command: list[str | Path] = [sys.executable, "-m", "inference", scan, tmp_path / "out", "--weights", weights]
        done = subprocess.run(
            [*(BOUND if os.getuid() == 0 else ()), *command, "--device", "cpu"],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
    finally:
        (weights / closed).chmod(before)
    assert done.returncode == 9
    assert done.stderr == f"error: {weights / named} cannot be read: Permission denied\n"
