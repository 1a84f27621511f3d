"""Measurements of anybody's label maps."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from inference.command.summary import Summary
from inference.compat.files import image_of
from inference.errors import names_are_hidden
from inference.measure import main
from tests.conftest import ROOT

SPACING = (3.0, 2.0, 2.0)
Save = Callable[..., Path]


@pytest.fixture
def pair(tmp_path: Path, blob: np.ndarray, save_scan: Save) -> tuple[Path, Path]:
    """Folders of a scan x and of its labels: a box of 1 and a bar of 14, 2 at a corner."""
    labels = np.zeros(blob.shape, np.uint8)
    labels[4:8, 20:30, 20:30] = 1
    labels[12, 30, 20:35] = 14
    labels[0, 0, 0] = 2
    save_scan(tmp_path / "scans" / "x_0000.nii.gz", blob, SPACING)
    save_scan(tmp_path / "labels" / "x.nii.gz", labels, SPACING)
    return tmp_path / "scans", tmp_path / "labels"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The program in this process: exit code, table, messages."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["measure", *map(str, arguments)])
        code = main()
        return code, *capfd.readouterr()

    return run


Measure = Callable[..., tuple[int, str, str]]


def values(table: str) -> dict[tuple[str, str, str], float]:
    rows = csv.DictReader(io.StringIO(table))
    return {(row["case"], row["name"], row["quantity"]): float(row["value"]) for row in rows}


def test_folders_and_single_files_give_the_same_table(
    pair: tuple[Path, Path], measure: Measure, tmp_path: Path, blob: np.ndarray
) -> None:
    scans, labels = pair
    code, table, said = measure(scans, labels)
    assert (code, said) == (0, "")
    found = values(table)
    assert found["x", "liver", "volume"] == 400 * 12 / 1000
    assert found["x", "liver", "mean"] == pytest.approx(blob[4:8, 20:30, 20:30].mean(), abs=0.006)
    assert found["x", "tumor", "longest axial diameter"] == 30.0
    assert found["x", "right_kidney", "edge contact first slice"] == 1
    assert ("x", "liver", "pieces") not in found
    for given in ((scans / "x_0000.nii.gz", labels / "x.nii.gz"), (scans / "x_0000.nii.gz", labels)):
        assert measure(*given) == (0, table, "")
    (labels / "x.nii.gz").rename(scans / "x.nii.gz")  # beside its scan
    assert measure(scans, scans) == (0, table, "")
    out = tmp_path / "table.csv"
    for _ in range(2):
        assert measure(scans, scans, "--out", out) == (0, "", "")
        assert out.read_text() == table
    out.write_text("mine")
    code, _, said = measure(scans, scans, "--out", out)
    assert code == 7 and "was not written by this program: choose another" in said and out.read_text() == "mine"


def test_scans_in_folders_of_their_own(pair: tuple[Path, Path], measure: Measure) -> None:
    scans, labels = pair
    _, table, _ = measure(scans, labels)
    (scans / "x").mkdir()
    (scans / "x_0000.nii.gz").rename(scans / "x" / "ct.nii.gz")
    code, _, said = measure(scans, labels)
    assert code == 2 and "such as --scans '*/ct.nii.gz'" in said
    assert measure(scans, labels, "--scans", "*/ct.nii.gz") == (0, table, "")


def test_a_table_that_the_next_run_would_replace_is_refused(pair: tuple[Path, Path], measure: Measure) -> None:
    scans, labels = pair
    out = labels / "measurements.csv"
    assert measure(scans, labels, "--out", out) == (0, "", "")  # no run writes here
    before = out.read_bytes()
    Summary().write(labels / "summary.json", 0, 1, [], {})
    code, _, said = measure(scans, labels, "--out", out)
    assert code == 7 and out.read_bytes() == before
    assert "the next run would replace this one: choose another file for --out" in said
    assert measure(scans, labels, "--out", labels / "corrected.csv") == (0, "", "")


def test_label_maps_without_a_scan_are_named_in_whatever_layout(pair: tuple[Path, Path], measure: Measure) -> None:
    scans, labels = pair
    (labels / "x.mha").touch()  # of the same case
    code, table, said = measure(scans, labels)
    assert (code, said) == (0, "")
    for name in ("x", "y"):
        (labels / f"sub-{name}" / "anat").mkdir(parents=True)
    (labels / "x.nii.gz").rename(labels / "sub-x" / "anat" / "sub-x_dseg.nii.gz")
    (labels / "x.mha").unlink()
    table = table.replace("\nx,", "\nsub-x,")  # as it is called there
    assert measure(scans, labels) == (0, table, "")
    for name in ("sub-y_dseg", "sub-y_T1w"):
        (labels / "sub-y" / "anat" / f"{name}.nii.gz").touch()
    lost = "warning: sub-y_dseg.nii.gz is left out: there is no scan of this name\n"
    assert measure(scans, labels) == (8, table, lost)


def test_names_of_labels(pair: tuple[Path, Path], measure: Measure, tmp_path: Path, tiny_weights: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text('{"1": "kidney lesion", "14": "cyst"}')
    code, table, _ = measure(*pair, "--names", file)
    found = values(table)
    assert code == 0 and {name for _, name, _ in found} == {"kidney lesion", "label_2", "cyst"}
    assert found["x", "kidney lesion", "pieces"] == 1 and ("x", "cyst", "pieces") not in found
    code, table, _ = measure(*pair, "--weights", tiny_weights)
    assert code == 0 and {name for _, name, _ in values(table)} == {"organ_1", "organ_2"}
    assert measure(*pair, "--weights", tmp_path)[0] == 9
    for text in ("[]", "{", '{"liver": 1}', '{"1": 1}', '{"300": "x"}', "{}"):
        file.write_text(text)
        with pytest.raises(SystemExit) as stop:
            measure(*pair, "--names", file)
        assert stop.value.code == 2


def test_names_of_a_dataset_of_nnunet(pair: tuple[Path, Path], measure: Measure, tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    for labels, order in (
        ({"background": 0, "spleen": 1, "liver": 2, "cyst": 14}, None),
        ({"background": 0, "spleen": [1, 2], "liver": [2, 14], "cyst": 14}, [1, 2, 14]),
        ({"0": "background", "1": "spleen", "2": "liver", "14": "cyst"}, None),  # version 1
    ):
        file.write_text(json.dumps({"labels": labels} | ({"regions_class_order": order} if order else {})))
        code, table, said = measure(*pair, "--names", file)
        assert (code, said) == (0, "")
        assert {(row["label"], row["name"]) for row in csv.DictReader(io.StringIO(table))} == {
            ("1", "spleen"), ("2", "liver"), ("14", "cyst"),
        }  # fmt: skip
    file.write_text(json.dumps({"labels": {"spleen": [1, 2]}}))  # regions whose values nobody says
    with pytest.raises(SystemExit):
        measure(*pair, "--names", file)


def test_names_that_the_file_itself_says(pair: tuple[Path, Path], measure: Measure) -> None:
    """As TotalSegmentator and compat write all labels to one file."""
    file = pair[1] / "x.nii.gz"
    image = image_of(
        np.asarray(nib.load(file).dataobj).T, nib.load(file), {1: "spleen", 2: "kidney_right", 14: "heart"}
    )
    nib.save(image, file)
    code, table, said = measure(*pair)
    assert (code, said) == (0, "")
    assert {name for _, name, _ in values(table)} == {"spleen", "kidney_right", "heart"}
    names = pair[1] / "names.json"
    names.write_text('{"1": "liver"}')
    assert {name for _, name, _ in values(measure(*pair, "--names", names)[1])} == {"liver", "label_2", "label_14"}


def test_a_folder_of_masks_is_measured_as_one_label_map(
    pair: tuple[Path, Path], measure: Measure, blob: np.ndarray, save_scan: Save
) -> None:
    scans, labels = pair
    code, whole, _ = measure(scans, labels)
    masks = labels.parent / "masks"
    voxels = np.asarray(nib.load(labels / "x.nii.gz").dataobj).T
    for value, name in ((1, "liver"), (2, "vertebrae_L1"), (14, "tumor"), (99, "heart")):  # the last is not there
        save_scan(masks / f"{name}.nii.gz", (voxels == value).astype(np.uint8), SPACING)
    code, table, said = measure(scans, masks)
    assert (code, said) == (0, "")
    assert values(table) == {
        (case, name.replace("right_kidney", "vertebrae_L1"), what): number
        for (case, name, what), number in values(whole).items()
    }
    for given in (scans, scans / "x_0000.nii.gz"):  # one of them, which is no liver though its value is 1
        code, table, said = measure(given, masks / "tumor.nii.gz")
        assert (code, said, {name for _, name, _ in values(table)}) == (0, "", {"tumor"})
    liver = save_scan(labels.parent / "liver_0000.nii.gz", blob, SPACING)  # a case of that name, and not its mask
    save_scan(labels / "liver.nii.gz", (voxels == 14).astype(np.uint8) * 14, SPACING)
    assert {name for _, name, _ in values(measure(liver, labels)[1])} == {"tumor"}
    (masks / "spleen.nii.gz").symlink_to(masks / "nowhere")
    code, _, said = measure(scans, masks)
    assert (code, said) == (
        4, "error: [1/1] x: spleen.nii.gz cannot be read: it is a link to a file that is not there\n",
    )  # fmt: skip
    (masks / "spleen.nii.gz").unlink()
    save_scan(masks / "all.nii.gz", voxels, SPACING)
    code, _, said = measure(scans, masks)
    assert (code, said) == (4, "error: [1/1] x: all.nii.gz is not the mask of one structure: it holds several values\n")


@pytest.mark.parametrize("orientation", ["RAS", "RPI", "SLA", "PIR"])
def test_labels_whose_axes_are_stored_in_another_order(
    orientation: str, pair: tuple[Path, Path], measure: Measure
) -> None:
    """As converters of DICOM store them, which turn the scan too."""
    _, table, _ = measure(*pair)
    file = pair[1] / "x.nii.gz"
    image = nib.load(file)
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(orientation))
    nib.save(image.as_reoriented(change), file)
    assert nib.load(file).affine.tolist() != image.affine.tolist()
    assert measure(*pair) == (0, table, "")


def test_an_empty_label_map_has_no_rows(
    pair: tuple[Path, Path], measure: Measure, blob: np.ndarray, save_scan: Save
) -> None:
    _, table, _ = measure(*pair)
    save_scan(pair[0] / "y_0000.nii.gz", blob, SPACING)
    save_scan(pair[1] / "y.nii.gz", np.zeros(blob.shape, np.uint8), SPACING)
    code, also, said = measure(*pair)
    assert (code, also) == (0, table) and "y.nii.gz: every voxel is 0" in said


def test_pairs_that_do_not_fit_fail_and_the_others_go_on(
    pair: tuple[Path, Path], measure: Measure, blob: np.ndarray, save_scan: Save
) -> None:
    scans, labels = pair
    good = np.ones(blob.shape, np.uint8)
    for name in ("cut", "half", "high", "moved", "none", "short", "turned"):
        save_scan(scans / f"{name}_0000.nii.gz", blob, SPACING)
    save_scan(scans / "mr_0000.nii.gz", (blob + 1100).astype(np.uint16), SPACING)
    save_scan(labels / "mr.nii.gz", good, SPACING)
    save_scan(labels / "half.nii.gz", good * np.float32(0.5), SPACING)
    save_scan(labels / "high.nii.gz", good.astype(np.int16) * 300, SPACING)
    save_scan(labels / "short.nii.gz", good[1:], SPACING)
    save_scan(labels / "moved.nii.gz", good, (3.0, 2.0, 2.1))
    save_scan(labels / "turned.nii.gz", good, SPACING, "RPS")
    whole = save_scan(labels / "cut.nii.gz", good, SPACING)
    whole.write_bytes(whole.read_bytes()[:-50])
    save_scan(labels / "alone.nii.gz", good, SPACING)
    code, table, said = measure(scans, labels)
    assert code == 8 and {case for case, _, _ in values(table)} == {"x"}
    errors = [line.partition("] ")[2] for line in said.splitlines() if line.startswith("error: ")]
    wanted = {
        "cut": "cut.nii.gz is cut off",
        "half": "half.nii.gz is not a label map",
        "high": "high.nii.gz is not a label map",
        "moved": "moved_0000.nii.gz and moved.nii.gz do not lie on one grid: voxels of",
        "mr": "mr_0000.nii.gz is not CT in HU",
        "none": "there is no label map none.nii.gz in ",
        "short": "short_0000.nii.gz and short.nii.gz do not lie on one grid: 72 x 60 x 26 and 72 x 60 x 25 voxels",
        "turned": "turned_0000.nii.gz and turned.nii.gz do not lie on one grid: their affines differ",
    }
    assert len(errors) == len(wanted)
    for line, (name, start) in zip(errors, sorted(wanted.items()), strict=True):
        assert line.startswith(f"{name}: {start}"), line
    assert "warning: alone.nii.gz is left out: there is no scan of this name" in said
    assert measure(scans / "mr_0000.nii.gz", labels)[0] == 4
    code, table, said = measure(scans / "mr_0000.nii.gz", labels, "--accept-intensities")
    assert code == 0 and values(table) and "mr_0000.nii.gz: is not CT in HU" in said


def test_what_cannot_be_opened_is_said(pair: tuple[Path, Path], measure: Measure, tmp_path: Path) -> None:
    scans, labels = pair
    assert measure(tmp_path / "gone", labels)[0] == 5
    assert measure(labels.parent, labels)[0] == 2
    code, _, said = measure(scans, tmp_path / "gone")
    assert code == 5 and said == f"error: {tmp_path / 'gone'} does not exist\n"
    assert measure(scans, labels, "--out", tmp_path / "gone" / "x.csv")[0] == 7
    (scans / "y_0000.nii.gz").write_bytes((scans / "x_0000.nii.gz").read_bytes())
    code, _, said = measure(scans, labels / "x.nii.gz")
    assert code == 2 and "is one label map" in said


def test_it_needs_no_engine_and_no_pytorch(pair: tuple[Path, Path]) -> None:
    program = (
        "import sys, json\nfrom inference.measure import main\ncode = main()\n"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    command = [sys.executable, "-c", program, *map(str, pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0 and not {"torch", "openvino", "onnxruntime", "SimpleITK"} & set(names)


def test_names_are_hidden_as_a_run_hides_them(pair: tuple[Path, Path], measure: Measure) -> None:
    scans, labels = pair
    for secret in (scans / "secret_0000.nii.gz", labels / "secret2.nii.gz"):
        secret.write_bytes(b"no scan")
    code, table, said = measure(scans, labels, "--hash-names")
    case = hashlib.sha256(b"x").hexdigest()[:12]
    assert code == 8 and {row[0] for row in values(table)} == {case} and len(said.splitlines()) == 2
    assert "secret" not in said and str(scans.parent) not in said
    assert not names_are_hidden()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_table_that_cannot_be_printed_is_called_one(pair: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "inference.measure", *map(str, pair), "--hash-names"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (7, "error: the table cannot be written: No space left on device\n")


def test_names_of_masks_are_hidden_but_for_those_of_organs(
    pair: tuple[Path, Path], measure: Measure, save_scan: Save
) -> None:
    scans, labels = pair
    voxels = np.asarray(nib.load(labels / "x.nii.gz").dataobj).T
    masks = labels.parent / "masks"
    for name in ("liver", "secret", "secret_tumor"):
        save_scan(masks / f"{name}.nii.gz", (voxels == 1).astype(np.uint8), SPACING)
    code, table, said = measure(scans, masks, "--hash-names")
    other, tumor = (hashlib.sha256(name).hexdigest()[:12] for name in (b"secret", b"secret_tumor"))
    assert (code, said) == (0, "") and {name for _, name, _ in values(table)} == {"liver", other, tumor}
    assert {name for _, name, what in values(table) if what == "pieces"} == {tumor}


def test_in_a_dataset_of_bids_a_scan_and_its_labels_have_one_hash(pair: tuple[Path, Path], measure: Measure) -> None:
    scans, labels = pair
    (labels / "sub-x" / "anat").mkdir(parents=True)
    (labels / "x.nii.gz").rename(labels / "sub-x" / "anat" / "sub-x_dseg.nii.gz")
    (scans / "x_0000.nii.gz").write_bytes(b"no scan")
    case = hashlib.sha256(b"sub-x").hexdigest()[:12]
    for one in ((scans, labels), (scans / "x_0000.nii.gz", labels / "sub-x" / "anat" / "sub-x_dseg.nii.gz")):
        code, _, said = measure(*one, "--hash-names")
        assert code == 4 and said.startswith(f"error: [1/1] {case}: {case} is not NIfTI")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_without_a_traceback(number: signal.Signals, pair: tuple[Path, Path]) -> None:
    scans, labels = pair
    (scans / "a_0000.nii.gz").write_bytes(b"named first, and so the sign that it has begun")
    for case in range(500):
        (scans / f"y{case}_0000.nii.gz").symlink_to(scans / "x_0000.nii.gz")
        (labels / f"y{case}.nii.gz").symlink_to(labels / "x.nii.gz")
    heard = ["env", "--default-signal=INT"]  # whoever runs these tests in the background ignores it
    command = [*heard, sys.executable, "-m", "inference.measure", str(scans), str(labels)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stderr and b"error: [1/502] a: " in program.stderr.readline()
        program.send_signal(number)
        assert program.communicate(timeout=30) == (b"", b"")
    assert program.returncode == 128 + number
