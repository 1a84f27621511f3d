"""Networks by name, from a server on this machine: archives of the shape of TotalSegmentator's, with tiny networks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("nnunetv2")

from inference.card_file import read_card
from inference.cards import read_cards
from inference.errors import OutputError, WeightsError
from inference.export.fetch import fetch
from inference.export.registry import FLARE, Entry, Part, Remote, entries, entry
from inference.given import scan_of
from inference.labels import ORGANS
from inference.predictor import Predictor
from inference.scan import Scan
from tests.conftest import ROOT
from tests.made.networks import old_plans, write_model
from tests.made.web import Web, served

# As if the whole had two parts. With FLARE's values labels are in another order, and the lobe is background.
PARTS = {
    "organs": ("spleen", "liver", "lung_upper_lobe_left", "kidney_right"),
    "ribs": ("rib_left_1", "rib_left_2"),
}


def zipped(model: Path, inside: str) -> bytes:
    """A result folder as an archive, with what TotalSegmentator's hold besides."""
    into = BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(model.rglob("*.*")):
            archive.write(file, f"{inside}/{file.relative_to(model)}")
        archive.writestr(f"{inside}/dataset_fingerprint.json", "{}")
        archive.writestr(f"__MACOSX/{inside}/._plans.json", "")
    return into.getvalue()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for seed, (name, labels) in enumerate(PARTS.items()):
        model = write_model(folder / name, labels=len(labels) + 1, seed=seed, orientation=None)
        reader = {"image_reader_writer": "NibabelIOWithReorient"}
        (model / "plans.json").write_text(json.dumps(old_plans(model) | reader))
        dataset = json.loads((model / "dataset.json").read_text())
        dataset["labels"]["ignore"] = len(labels) + 1
        (model / "dataset.json").write_text(json.dumps(dataset))
        made[name] = zipped(model, f"Dataset29{seed}_{name}/nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres")
    return made


@pytest.fixture
def web(archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with served() as web:
        web.files |= {f"/{name}.zip": content for name, content in archives.items()}
        yield web


def whole(address: str, archives: dict[str, bytes], **known: str) -> Entry:
    first, networks = 1, {}
    for name, labels in PARTS.items():
        remote = Remote(f"{address}/{name}.zip", bytes=len(archives[name]), sha256=known.get(name))
        networks[name] = Part(first, (remote,), labels)
        first += len(labels)
    return Entry("everything", "1 MB", "Apache-2.0", "https://a.org", "A. et al.", "CT of many", "RAS", networks, 0.8)


@pytest.fixture(scope="module")
def exported(archives: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights for each of the two ways of naming labels."""
    out = tmp_path_factory.mktemp("weights")
    with served() as web:
        web.files |= {f"/{name}.zip": content for name, content in archives.items()}
        for labels in ("own", "flare"):
            fetch(whole(web.address, archives), out / labels, labels=labels)
    return out


@pytest.mark.slow
def test_each_part_has_its_values_in_the_whole(exported: Path) -> None:
    values = {card.name: card.names for card in read_cards(exported / "own", None)}
    assert values == {
        "organs": {1: "spleen", 2: "liver", 3: "lung_upper_lobe_left", 4: "kidney_right"},
        "ribs": {5: "rib_left_1", 6: "rib_left_2"},
    }
    card = read_card(exported / "own" / "organs")
    assert card.orientation == "RAS" and card.way == "dense" and card.step == 0.8
    assert card.trained_on == "CT of many. Apache-2.0, https://a.org"
    assert sorted(path.name for path in (exported / "own").iterdir()) == ["organs", "ribs"]


@pytest.mark.slow
def test_labels_of_flare_have_its_values_and_others_are_background(exported: Path) -> None:
    cards = {card.name: card for card in read_cards(exported / "flare", None)}
    assert sorted(cards) == ["organs"]  # ribs have none of FLARE's labels
    assert [(label.name, label.value) for label in cards["organs"].labels] == [
        ("background", 0), ("spleen", 3), ("liver", 1), ("lung_upper_lobe_left", 0), ("kidney_right", 2),
    ]  # fmt: skip


def noise() -> Scan:
    """Soft noise, as a CT that an RAS array holds."""
    hu = np.random.default_rng(0).normal(0, 300, (24, 40, 44)).clip(-1000, 1500).astype(np.int16)
    return scan_of(hu, (4.0, 3.0, 3.0), "RAS")


def label_map(weights: Path, *networks: str) -> np.ndarray:
    labels: np.ndarray = Predictor(weights, networks=networks).segment(noise())[0]
    return labels


@pytest.mark.slow
def test_inference_takes_several_labels_of_one_value(exported: Path, tmp_path: Path) -> None:
    """What is background to FLARE, and parts that are one label, are as if the map was changed afterwards."""
    own = label_map(exported / "own", "organs")
    assert set(np.unique(own)) == {0, 1, 2, 3, 4}
    flare = label_map(exported / "flare", "organs")
    np.testing.assert_array_equal(flare, np.array([0, 3, 1, 0, 2], np.uint8)[own])
    shutil.copytree(exported / "own" / "organs", tmp_path / "organs")
    card = json.loads((tmp_path / "organs" / "card.json").read_text())
    for label in card["labels"][1:]:
        label["value"] = 9 if label["value"] in (1, 4) else label["value"]
    (tmp_path / "organs" / "card.json").write_text(json.dumps(card))
    np.testing.assert_array_equal(label_map(tmp_path, "organs"), np.array([0, 9, 2, 3, 9], np.uint8)[own])


@pytest.mark.slow
def test_networks_are_laid_over_each_other_into_one_map(exported: Path) -> None:
    organs, ribs, both = (label_map(exported / "own", *names) for names in (["organs"], ["ribs"], ["organs", "ribs"]))
    np.testing.assert_array_equal(both, np.where(ribs > 0, ribs, organs))
    assert {2, 5} <= set(np.unique(both))


@pytest.mark.slow
def test_a_second_call_goes_on_and_fetches_nothing_twice(
    web: Web, archives: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del web.files["/ribs.zip"]
    with pytest.raises(WeightsError, match="404"):
        fetch(whole(web.address, archives), tmp_path / "out")
    web.files["/ribs.zip"], web.cuts = archives["ribs"], [1000]
    web.asked.clear()
    made = fetch(whole(web.address, archives), tmp_path / "out")
    assert made == [tmp_path / "out" / name for name in ("organs", "ribs")]
    assert web.asked == [("/ribs.zip", None), ("/ribs.zip", "bytes=1000-")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["organs", "ribs"]
    said = capsys.readouterr().out
    assert f"{tmp_path / 'out' / 'organs'}: exists already" in said
    assert "No digest of it is known here" in said


def test_the_wrong_file_is_not_kept(web: Web, archives: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"organs.zip is damaged or another file: its sha256 is"):
        fetch(whole(web.address, archives, organs="0" * 64), tmp_path / "out")
    web.files["/organs.zip"] = bytes(len(archives["organs"]))
    with pytest.raises(WeightsError, match=r"organs.zip cannot be unpacked: File is not a zip file"):
        fetch(whole(web.address, archives), tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_network_that_its_authors_crop_to_organs_looks_near_these(
    web: Web, archives: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("kidney_cyst_left", "kidney_cyst_right", "kidney_left", "kidney_right")
    near, auxiliary = ("left_kidney", "right_kidney"), ("kidney_left", "kidney_right")
    part = Part(1, (Remote(f"{web.address}/organs.zip"),), labels, near, auxiliary)
    cysts = Entry("", "", "", "", "", "", "RAS", {"cysts": part})
    fetch(cysts, tmp_path / "out")
    assert "It looks near these alone: left_kidney, right_kidney." in capsys.readouterr().out
    (card,) = read_cards(tmp_path / "out", None)
    assert card.guide and card.guide.values == (2, 13) and card.way == "crop" and card.step == 0.5
    assert [label.value for label in card.labels] == [0, 1, 2, 0, 0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cysts"]
    web.asked.clear()
    fetch(cysts, tmp_path / "out")
    assert not web.asked and read_card(tmp_path / "out" / "cysts") == card
    found, record = Predictor(tmp_path / "out").segment(noise())
    assert record.windows["cysts"]["guide"] == "found nothing" and set(np.unique(found)) == {0, 1, 2}


@pytest.mark.slow
def test_files_that_somebody_else_brought(archives: dict[str, bytes], tmp_path: Path) -> None:
    """Nothing is asked of the network: its address leads nowhere."""
    (tmp_path / "in").mkdir()
    nowhere = whole("http://nowhere.invalid", archives)
    with pytest.raises(WeightsError, match=r"organs.zip is missing"):
        fetch(nowhere, tmp_path / "out", labels=FLARE, given=tmp_path / "in")
    (tmp_path / "in" / "organs.zip").write_bytes(archives["organs"])
    fetch(nowhere, tmp_path / "out", labels=FLARE, given=tmp_path / "in")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["organs"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["organs.zip"]


@pytest.mark.slow
def test_a_network_of_single_files(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", labels=2)
    shutil.copytree(model / "fold_0", model / "fold_1")
    places = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth")
    with served() as web:
        web.files |= {f"/main/{place}": (model / place).read_bytes() for place in places}
        files = tuple(Remote(f"{web.address}/main/{place}", place) for place in places)
        one = Entry("", "", "", "", "", "", None, {"lesions": Part(1, files, ("tumor",))})
        fetch(one, tmp_path / "out", labels=FLARE)
    card = read_card(tmp_path / "out" / "lesions")
    assert json.loads((card.folder / "card.json").read_text())["source"]["fold"] == "fold_0,fold_1"
    assert card.names == {14: "tumor"} and card.orientation == "LPS"  # as its dataset.json says
    (model / "plans.json").write_text("{")
    with pytest.raises(WeightsError, match=rf"{model}/plans.json cannot be read"):
        fetch(one, tmp_path / "other", given=model)


def test_another_network_than_the_one_known(archives: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "organs.zip").write_bytes(archives["organs"])
    part = Part(1, (Remote("https://a.org/organs.zip"),), ("liver", "spleen"))
    with pytest.raises(WeightsError, match=r"organs.zip/dataset.json has other labels than the 2 known here"):
        fetch(Entry("", "", "", "", "", "", "RAS", {"organs": part}), tmp_path / "out", given=tmp_path)
    bones = Part(1, (), ("rib_left_1",))
    with pytest.raises(WeightsError, match="no label of bones is one of FLARE's: fetch it without --labels flare"):
        fetch(Entry("", "", "", "", "", "", "RAS", {"bones": bones}), tmp_path / "out", labels=FLARE)


def test_a_place_that_cannot_be_written(archives: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        fetch(whole("http://nowhere.invalid", archives), tmp_path / "file", given=tmp_path)


def test_the_registry() -> None:
    every = entries()
    files = [remote for one in every.values() for part in one.networks.values() for remote in part.files]
    assert all(remote.url.startswith("https://") for remote in files)
    assert all(remote.sha256 is None or len(remote.sha256) == 64 for remote in files)
    names = [name for one in every.values() for name in one.networks]
    assert len(set(names)) == len(names)  # they may be exported to one folder
    parts = [part for one in every.values() for part in one.networks.values()]
    assert {organ for part in parts for organ in part.near} <= {organ.key for organ in ORGANS}
    assert all(set(part.auxiliary) <= set(part.labels) for part in parts)
    with pytest.raises(WeightsError, match="'total' is not a name known here: totalsegmentator,"):
        entry("total")


def test_values_of_totalsegmentator() -> None:
    """Its map_to_binary.py: class_map["total"], which is the parts' one after the other."""
    parts = entry("totalsegmentator").networks
    assert [len(part.labels) for part in parts.values()] == [24, 26, 18, 23, 26]
    values = {name: value for part in parts.values() for name, value in part.values("own").items()}
    assert sorted(values.values()) == list(range(1, 118))
    assert entry("totalsegmentator-3mm").networks["total_3mm"].values("own") == values
    assert entry("totalsegmentator").step == entry("totalsegmentator-3mm").step == 0.8  # its nnunet.py, task total
    assert {name: values[name] for name in ("spleen", "prostate", "sacrum", "vertebrae_C1", "heart", "aorta")} == {
        "spleen": 1, "prostate": 22, "sacrum": 25, "vertebrae_C1": 50, "heart": 51, "aorta": 52,
    }  # fmt: skip
    assert {name: values[name] for name in ("humerus_left", "skull", "rib_left_1", "rib_right_1", "sternum")} == {
        "humerus_left": 69, "skull": 91, "rib_left_1": 92, "rib_right_1": 104, "sternum": 116,
    }  # fmt: skip


def test_values_of_its_other_tasks() -> None:
    """The same file: "total_mr" is in two parts, and what is in "kidney_cysts_auxiliary" it drops."""
    parts = entry("total_mr").networks
    assert [len(part.labels) for part in parts.values()] == [29, 21]
    values = {name: value for part in parts.values() for name, value in part.values("own").items()}
    assert sorted(values.values()) == list(range(1, 51)) and values["aorta"] == 23 and values["brain"] == 50
    assert entry("total_mr-3mm").networks["total_mr_3mm"].values("own") == values
    assert entry("total_mr").step == entry("total_mr-3mm").step == 0.8 and entry("kidney_cysts").step is None
    assert entry("kidney_cysts").networks["kidney_cysts"].values("own") == {
        "kidney_cyst_left": 1, "kidney_cyst_right": 2, "kidney_left": 0, "kidney_right": 0,
    }  # fmt: skip
    assert list(entry("total_mr").wanted(FLARE)) == ["organs_mr"]
    assert not entry("kidney_cysts").wanted(FLARE) and not entry("liver_vessels").wanted(FLARE)


def test_flare_has_13_organs_in_totalsegmentator_and_a_tumour_in_panther() -> None:
    wanted = entry("totalsegmentator").wanted(FLARE)
    assert list(wanted) == ["organs", "cardiac"]
    found = [value for part in wanted.values() for value in part.values(FLARE).values() if value]
    assert sorted(found) == list(range(1, 14))
    assert entry("panther").networks["panther"].values(FLARE) == {"tumor": 14}


def test_the_list_needs_no_pytorch_and_names_licences() -> None:
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['fetch']; " \
           "from inference.export.fetch import main; main()"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    for name, one in entries().items():
        assert f"{name} ({one.size}, {one.licence}, {one.page})\n    {one.segments}\n" in done.stdout


def test_the_command(archives: dict[str, bytes], tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "inference.export.fetch", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert run("panther").returncode == 2
    assert run("--list", "total").returncode == 9
    assert f"\n    {entry('body').networks['body'].files[0].url}\n" in run("--list", "body").stdout
    done = run("totalsegmentator-3mm", str(tmp_path / "out"), "--from", str(tmp_path))
    assert done.returncode == 9
    name = entry("totalsegmentator-3mm").networks["total_3mm"].files[0].name
    assert done.stderr == f"error: {tmp_path / name} is missing\n"
