"""The command, end to end on tiny networks: files out, records, exit codes."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from inference import __version__
from inference.command.cli import main, parse
from inference.errors import UNTOLD
from tests.conftest import ROOT, command, wait

F32 = ("--device", "cpu", "--engine", "onnxruntime")


def run(*arguments: str | Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, cwd=ROOT, **changes)


@pytest.fixture
def inputs(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Path:
    """Two scans of one patient: as stored by a scanner, and turned."""
    save_scan(tmp_path / "in" / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    save_scan(tmp_path / "in" / "b_0000.nii.gz", blob[:, ::-1, ::-1], (3.0, 2.0, 2.0), "RAS")
    return tmp_path / "in"


def label_maps(folder: Path) -> list[str]:
    """Names of the label maps in a folder that holds nothing else but their sidecars and a summary."""
    names = {path.name for path in folder.iterdir()}
    maps = sorted(name for name in names if name.endswith(".nii.gz"))
    assert names - set(maps) <= {
        "summary.json",
        "measurements.csv",
        *(name.replace(".nii.gz", ".json") for name in names),
    }
    return maps


def labels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@dataclass(frozen=True)
class Run:
    """A run of the command that several tests look at, and change nothing of."""

    inputs: Path
    out: Path
    record: list[dict[str, Any]]
    code: int
    said: str


@pytest.fixture(scope="module")
def five(
    tmp_path_factory: pytest.TempPathFactory, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> Run:
    """Of five cases two can be segmented, a and b: one patient, as stored by a scanner and turned. The others are not
    CT in HU, cut off, and no NIfTI. A sixth file has b's name."""
    folder = tmp_path_factory.mktemp("five")
    inputs, out, record = folder / "in", folder / "new" / "out", folder / "runs" / "r.json"
    whole = save_scan(inputs / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    turned = save_scan(inputs / "b_0000.nii.gz", blob[:, ::-1, ::-1], (3.0, 2.0, 2.0), "RAS")
    save_scan(inputs / "c_0000.nii.gz", (blob + 1100).astype(np.uint16), (3.0, 2.0, 2.0))
    (inputs / "d_0000.nii.gz").write_bytes(whole.read_bytes()[:-2000])
    (inputs / "e_0000.nii.gz").write_bytes(b"no NIfTI")
    (inputs / "b_0000.nii").write_bytes(gzip.decompress(turned.read_bytes()))
    done = run(inputs, out, "--weights", tiny_weights, "--json", record, *F32)
    return Run(inputs, out, json.loads(record.read_text()), done.returncode, done.stderr)


def test_a_folder_of_scans(five: Run) -> None:
    assert five.code == 8, five.said
    assert label_maps(five.out) == ["a.nii.gz", "b.nii.gz"]
    scan, found = nib.load(five.inputs / "a_0000.nii.gz"), nib.load(five.out / "a.nii.gz")
    assert found.shape == scan.shape
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(found.affine, scan.affine)
    assert set(np.unique(found.dataobj)) <= {0, 1, 2, 3, 4, 14}
    # The same patient, however stored, gets the same labels.
    assert np.array_equal(labels(five.out / "b.nii.gz")[::-1, ::-1], labels(five.out / "a.nii.gz"))
    first, second = (one for one in five.record if one["status"] == "done")
    assert (first["case"], first["status"], first["engine"], first["device"]) == ("a", "done", "onnxruntime", "cpu")
    assert first["windows_run"] > 0 and first["peak_memory_mb"] > 0
    assert {"load", "read", "prepare", "network", "restore", "write", "total"} <= set(first["seconds"])
    assert second["seconds"]["load"] == 0
    for value, entry in first["labels"].items():
        assert entry["voxels"] == int((labels(five.out / "a.nii.gz") == int(value)).sum())
        assert entry["ml"] == pytest.approx(entry["voxels"] * 3 * 2 * 2 / 1000, abs=1e-3)


def test_the_arrays_in_arrays_out_api_gives_the_same(five: Run, tiny_weights: Path) -> None:
    from inference import Predictor

    predictor = Predictor(tiny_weights, device="cpu", engine="onnxruntime")
    voxels = np.asarray(nib.load(five.inputs / "a_0000.nii.gz").dataobj).T
    assert np.array_equal(predictor(voxels, (3.0, 2.0, 2.0), "LPS").T, labels(five.out / "a.nii.gz"))
    assert predictor.labels[14] == "organ_1"
    with pytest.raises(ValueError, match="3-D"):
        predictor(voxels[0], (3.0, 2.0, 2.0), "LPS")
    with pytest.raises(ValueError, match="spacing"):
        predictor(voxels, (3.0, 0.0, 2.0), "LPS")


def test_a_damaged_scan_is_named_and_the_others_go_on(five: Run) -> None:
    assert "d_0000.nii.gz" in five.said and "4 of 6 cases failed" in five.said
    (failed,) = (one for one in five.record if one["case"] == "d")
    assert failed["status"] == "failed" and "d_0000.nii.gz" in failed["error"]


def test_of_two_scans_of_one_name_the_second_fails(five: Run) -> None:
    assert "b_0000.nii.gz is left out: b_0000.nii has the same case name" in five.said
    assert [one["status"] for one in five.record if one["case"] == "b"] == ["done", "failed"]


def test_the_sidecar_and_the_summary_say_how_it_went(five: Run, tiny_weights: Path) -> None:
    a = json.loads((five.out / "a.json").read_text())
    assert (a["status"], a["program"], a["engine"]) == ("done", __version__, "onnxruntime")
    assert a["input_sha256"] == hashlib.sha256((five.inputs / "a_0000.nii.gz").read_bytes()).hexdigest()
    assert a["output_sha256"] == hashlib.sha256((five.out / "a.nii.gz").read_bytes()).hexdigest()
    card = (tiny_weights / "organ" / "card.json").read_bytes()
    assert a["weights"]["organ"] == hashlib.sha256(card).hexdigest()
    sidecars = {name: json.loads((five.out / f"{name}.json").read_text()) for name in "cde"}
    assert all(one["status"] == "failed" and f"{name}_0000.nii.gz" in one["error"] for name, one in sidecars.items())
    summary = json.loads((five.out / "summary.json").read_text())
    assert summary["exit_code"] == 8
    assert summary["cases"] == {"done": 2, "kept": 0, "failed": 4, "not_begun": 0}
    failed = {one["case"]: one["error"] for one in summary["failed"]}
    assert failed.pop("b").startswith("b_0000.nii.gz is left out")
    assert failed == {name: one["error"] for name, one in sidecars.items()}


def test_what_cannot_be_hu_is_refused_unless_it_is_accepted(five: Run, tmp_path: Path, tiny_weights: Path) -> None:
    assert "c_0000.nii.gz is not CT in HU" in five.said and "--accept-intensities" in five.said
    flags = ("--weights", tiny_weights, "--networks", "organ", "--json", tmp_path / "run.json", *F32)
    done = run(five.inputs / "c_0000.nii.gz", tmp_path / "out", "--accept-intensities", *flags)
    assert done.returncode == 0, done.stderr
    assert label_maps(tmp_path / "out") == ["c.nii.gz"]
    (record,) = json.loads((tmp_path / "run.json").read_text())
    assert any("is not CT in HU" in warning for warning in record["warnings"])


def test_where_every_case_fails_the_exit_code_says_so(five: Run, tmp_path: Path, tiny_weights: Path) -> None:
    done = run(five.inputs / "d_0000.nii.gz", tmp_path / "out", "--weights", tiny_weights, *F32)
    assert done.returncode == 4


def test_flags_of_dicom_that_change_nothing_are_said(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    done = run(inputs, tmp_path / "out", "--weights", tiny_weights, "--name-by", "PatientID", "--anonymous", *F32)
    assert done.returncode == 0
    assert done.stderr.count("warning: --name-by changes no name: none of the cases is DICOM\n") == 1
    assert (
        done.stderr.count("warning: --anonymous changes nothing: none of the formats that are written is DICOM\n") == 1
    )


def test_networks_that_nobody_named_are_said(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    (weights / "tumor").rename(weights / "vessels")
    said = "warning: networks not run beside organ: vessels (--networks names those that are to run)\n"
    flags = ("--weights", weights, "--threads", "1", *F32)
    done = run(inputs / "a_0000.nii.gz", tmp_path / "out", *flags)
    assert done.returncode == 0 and done.stderr.count(said) == 1, done.stderr
    done = run(inputs / "a_0000.nii.gz", tmp_path / "out", *flags, "--networks", "organ")
    assert done.returncode == 0 and said not in done.stderr


def test_one_file_some_networks_and_the_dense_plan(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    flags = ("--weights", tiny_weights, "--plan", "dense", "--step", "0.75", "--threads", "1", *F32)
    done = run(inputs / "a_0000.nii.gz", tmp_path / "out", *flags, "--networks", "tumor")
    assert done.returncode == 0, done.stderr
    assert set(np.unique(labels(tmp_path / "out" / "a.nii.gz"))) <= {0, 14}


def test_on_error_empty_leaves_an_empty_map_and_a_failure(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    whole = (inputs / "a_0000.nii.gz").read_bytes()
    (inputs / "c_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    (inputs / "d_0000.nii.gz").write_bytes(b"no NIfTI")
    done = run(inputs, tmp_path / "out", "--weights", tiny_weights, "--on-error", "empty", *F32)
    assert done.returncode == 8
    assert label_maps(tmp_path / "out") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    empty = nib.load(tmp_path / "out" / "c.nii.gz")
    assert empty.shape == nib.load(inputs / "a_0000.nii.gz").shape and not np.any(empty.dataobj)
    assert json.loads((tmp_path / "out" / "c.json").read_text())["status"] == "failed"
    assert "no empty label map either" in done.stderr  # of d not even the header can be read


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_nothing_of_the_inputs_is_replaced(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    (inputs / "a_0000.nii.gz").rename(inputs / "a.nii.gz")
    before = listing(inputs)
    (tmp_path / "link").symlink_to(inputs)
    weights = ("--weights", tiny_weights)
    for arguments in (
        (inputs, inputs), (inputs, inputs / ".." / "in"), (inputs, tmp_path / "link"), (inputs / "a.nii.gz", inputs),
        (inputs, tmp_path / "out", "--json", inputs / "b_0000.nii.gz"),
        (inputs, tmp_path / "out", "--json", tiny_weights / "organ" / "card.json"),
        (inputs, tmp_path / "out", "--json", tmp_path / "out" / "b.json"),
    ):  # fmt: skip
        done = run(*arguments, *weights)
        assert done.returncode == 7 and done.stderr.count("error: ") == 1, done.stderr
        assert "choose another" in done.stderr and not done.stdout
        assert listing(inputs) == before
    json.loads((tiny_weights / "organ" / "card.json").read_text())["labels"]


def test_a_folder_that_is_its_own_output(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    scan = (inputs / "a_0000.nii.gz").read_bytes()
    for _ in range(2):
        done = run(inputs, inputs, "--weights", tiny_weights, "--case", "a", *F32)
        assert done.returncode == 0, done.stderr
    names = {"a.json", "a.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz", "measurements.csv", "summary.json"}
    assert set(os.listdir(inputs)) == names and (inputs / "a_0000.nii.gz").read_bytes() == scan
    (inputs / "a.nii.gz").write_bytes(b"by hand")
    assert run(inputs, inputs, "--weights", tiny_weights, *F32).returncode == 7
    assert (inputs / "a.nii.gz").read_bytes() == b"by hand"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many pages of 4 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(pages: int) -> Path:
        command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", disk]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount")
        return disk

    yield mount
    subprocess.run(["umount", disk], capture_output=True, check=False)


@pytest.mark.slow
def test_labels_for_which_there_is_no_room_are_not_replaced_by_zeros(
    inputs: Path, tmp_path: Path, tiny_weights: Path, small_disk: Callable[[int], Path]
) -> None:
    """A label map of these scans takes two pages, and one of zeros would take one."""
    flags = ("--weights", tiny_weights, "--on-error", "empty", "--no-sidecar", "--json", tmp_path / "r.json", *F32)
    disk = small_disk(3)
    done = run(inputs, disk, *flags)
    assert (done.returncode, label_maps(disk)) == (8, ["a.nii.gz"]), done.stderr
    assert labels(disk / "a.nii.gz").any()
    assert "b.nii.gz cannot be written: No space left on device" in done.stderr and "empty" not in done.stderr
    assert [one.get("unwritten") for one in json.loads((tmp_path / "r.json").read_text())] == [None, True]
    done = run(inputs, disk, *flags, "--case", "b")  # nothing could be written at all: not "every case failed"
    assert (done.returncode, label_maps(disk)) == (7, ["a.nii.gz"]), done.stderr


def test_a_folder_that_cannot_be_synced_is_said_once_and_costs_no_label_map(
    inputs: Path, tmp_path: Path, tiny_weights: Path, failing_fsync: Path
) -> None:
    changes = {"LD_PRELOAD": str(failing_fsync), "FAIL_FSYNC": "folder", "FAIL_ERRNO": str(errno.EINVAL)}
    out, flags = tmp_path / "out", ("--weights", tiny_weights, "--on-error", "empty", "--no-sidecar", *F32)
    done = run(inputs, out, *flags, "--json", tmp_path / "r.json", env=os.environ | changes)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot sync") == 1
    assert label_maps(out) == ["a.nii.gz", "b.nii.gz"] and labels(out / "a.nii.gz").any()
    assert all("cannot sync" in one["warnings"][0] for one in json.loads((tmp_path / "r.json").read_text()))


def test_json_of_others_is_left_alone(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.json", "summary.json"):
        (out / name).write_text('{"mine": 1}')
    record = tmp_path / "r.json"
    done = run(inputs, out, "--weights", tiny_weights, "--case", "a", "--json", record, *F32)
    assert done.returncode == 0, done.stderr
    assert (out / "a.json").read_text() == (out / "summary.json").read_text() == '{"mine": 1}'
    assert "a.json exists already" in done.stderr and "summary.json exists already" in done.stderr
    (one,) = json.loads(record.read_text())
    assert one["status"] == "done" and "a.json exists already" in one["warnings"][0]


@pytest.mark.slow
def test_a_failed_case_leaves_no_labels_of_an_earlier_run(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    out, flags = tmp_path / "out", ("--weights", tiny_weights, *F32)
    assert run(inputs, out, *flags).returncode == 0
    (out / "b.nii.gz").write_bytes(b"corrected by hand")
    for name in ("a", "b"):
        scan = inputs / f"{name}_0000.nii.gz"
        scan.write_bytes(scan.read_bytes()[:-2000])
    done = run(inputs, out, *flags)
    assert done.returncode == 4
    assert sorted(os.listdir(out)) == ["a.json", "b.json", "b.nii.gz.before", "measurements.csv", "summary.json"]
    assert (out / "b.nii.gz.before").read_bytes() == b"corrected by hand"
    assert "b.nii.gz that was there is not known to be this program's: it now ends in .before" in done.stderr
    assert json.loads((out / "a.json").read_text())["status"] == "failed"


def test_labels_of_another_scan_are_not_replaced_without_a_word(
    inputs: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    """Folders of patients whose scans are all called alike, one after the other into one folder."""
    for one, name in (("p1", "a"), ("p2", "b")):
        (tmp_path / one).mkdir()
        (inputs / f"{name}_0000.nii.gz").rename(tmp_path / one / "ct.nii.gz")
    out, flags = tmp_path / "out", ("--weights", tiny_weights, *F32)
    warning = "ct.nii.gz that was there was made from another scan, or from other files of this one: it is gone"
    for one, warned in (("p1", False), ("p1", False), ("p2", True)):
        done = run(tmp_path / one, out, *flags)
        assert (done.returncode, warning in done.stderr) == (0, warned), done.stderr
    assert f"the {warning}" in json.loads((out / "ct.json").read_text())["warnings"]


@pytest.mark.slow
def test_without_sidecars_a_second_run_leaves_no_copy_of_the_same_labels(
    inputs: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    """Nor of the same zeros: in FLARE's mount, every file is scored."""
    scan = inputs / "b_0000.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-2000])
    flags = ("--weights", tiny_weights, "--no-sidecar", "--on-error", "empty", *F32)
    for _ in range(2):
        done = run(inputs, tmp_path / "out", *flags)
        assert done.returncode == 8 and "before" not in done.stderr
        assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "b.nii.gz"]


def test_a_scan_that_is_left_out_is_no_success(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    out, flags = tmp_path / "out", ("--weights", tiny_weights, *F32)
    (inputs / "a.nii.gz").write_bytes(b"a reference")
    (inputs / "notes.txt").write_text("text")
    done = run(inputs, out, *flags)
    assert done.returncode == 0 and done.stderr.count("a.nii.gz is left out") == 1, done.stderr
    (left,) = json.loads((out / "summary.json").read_text())["left_out"]
    assert left["file"] == "a.nii.gz" and "reference labels" in left["reason"]
    (inputs / "c.mgz").touch()
    done = run(inputs, out, *flags, "--resume")
    assert done.returncode == 8 and "c.mgz is left out" in done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["exit_code"] == 8 and [one["file"] for one in summary["left_out"]] == ["c.mgz", "a.nii.gz"]


def test_two_names_that_the_file_system_takes_for_one(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    """As where case does not count: a hard link plays that here."""
    out, flags = tmp_path / "out", ("--weights", tiny_weights, *F32)
    assert run(inputs, out, *flags, "--case", "a").returncode == 0
    os.link(out / "a.nii.gz", out / "A.nii.gz")
    os.link(inputs / "b_0000.nii.gz", inputs / "A_0000.nii.gz")
    done = run(inputs, out, *flags, "--resume", "--case", "a", "--case", "A")
    assert done.returncode == 8 and "another case of this run has written A.nii.gz already" in done.stderr
    assert labels(out / "a.nii.gz").any()


def resumed(inputs: Path, out: Path, *flags: str | Path) -> list[str]:
    """The cases' statuses in a run with --resume."""
    record = out.parent / "r.json"
    done = run(inputs, out, "--resume", "--json", record, *flags, *F32)
    assert done.returncode == 0, done.stderr
    return [one["status"] for one in json.loads(record.read_text())]


@pytest.mark.slow
def test_probabilities_lie_beside_the_labels(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    out, flags = tmp_path / "out", ("--weights", tiny_weights, "--save-probabilities")
    assert resumed(inputs, out, *flags[:2]) == ["done", "done"]
    plain = listing(out)
    assert resumed(inputs, out, *flags) == ["done", "done"]  # labels without them do not fit
    assert (out / "a.nii.gz").read_bytes() == plain["a.nii.gz"]
    record = json.loads((out / "a.json").read_text())
    files = {f"organ.organ_{value}.nii.gz" for value in range(1, 5)} | {"tumor.organ_1.nii.gz"}
    assert set(os.listdir(out / "a.probabilities")) == files == set(record["probabilities"])
    assert record["probabilities"]["tumor.organ_1.nii.gz"] == {"network": "tumor", "value": 14, "name": "organ_1"}
    for name in files:  # of one patient, stored in two ways
        a, b = (labels(out / f"{case}.probabilities" / name) for case in "ab")
        assert np.abs(a - b[::-1, ::-1]).max() < 0.03
    (out / "a.probabilities" / "organ.organ_1.nii.gz").unlink()
    assert resumed(inputs, out, *flags) == ["done", "kept"]
    assert sorted(os.listdir(out / "a.probabilities.before")) == sorted(files - {"organ.organ_1.nii.gz"})
    assert set(os.listdir(out / "a.probabilities")) == files
    scan = inputs / "a_0000.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-2000])
    assert run(inputs, out, *flags, "--resume", "--on-error", "empty", *F32).returncode == 8
    names = {"a.json", "a.nii.gz", "a.probabilities.before", "b.json", "b.nii.gz", "b.probabilities"}
    names |= {"measurements.csv", "summary.json"}
    assert set(os.listdir(out)) == names and not labels(out / "a.nii.gz").any()
    assert run(inputs, out, *flags[:2], "--case", "b", *F32).returncode == 0
    assert set(os.listdir(out)) == names - {"b.probabilities"}  # those of labels that went


def test_probabilities_in_the_folder_of_the_scans(inputs: Path, tiny_weights: Path) -> None:
    flags = ("--weights", tiny_weights, "--networks", "organ", "--save-probabilities", *F32)
    for _ in range(2):
        done = run(inputs, inputs, *flags)
        assert done.returncode == 0 and "left out" not in done.stderr, done.stderr
    (inputs / "a.probabilities" / "notes.txt").write_text("by hand")
    done = run(inputs, inputs, *flags)
    assert done.returncode == 7 and "a.probabilities is a file of the inputs" in done.stderr
    assert (inputs / "a.probabilities" / "notes.txt").exists()


@pytest.mark.slow
def test_resume_keeps_what_fits_and_redoes_the_rest(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    out, weights = tmp_path / "out", tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    flags: tuple[str | Path, ...] = ("--weights", weights)
    assert resumed(inputs, out, *flags) == ["done", "done"]
    first = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    written = (out / "a.nii.gz").stat().st_mtime_ns
    assert resumed(inputs, out, *flags) == ["kept", "kept"]
    (out / "b.nii.gz").write_bytes(first["b.nii.gz"][:-10])  # damaged
    assert resumed(inputs, out, *flags) == ["kept", "done"]
    (out / "b.json").unlink()  # nothing is known of it
    assert resumed(inputs, out, *flags) == ["kept", "done"]
    assert (out / "a.nii.gz").stat().st_mtime_ns == written
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == first
    assert resumed(inputs, out, *flags, "--plan", "dense") == ["done", "done"]  # made otherwise
    record = json.loads((out / "a.json").read_text())
    (out / "a.json").write_text(json.dumps(record | {"precision": "int8"}))  # more than "auto" gives changed labels
    assert resumed(inputs, out, *flags, "--plan", "dense") == ["done", "kept"]
    scan = inputs / "a_0000.nii.gz"
    scan.write_bytes((inputs / "b_0000.nii.gz").read_bytes())  # another scan of the same name
    assert resumed(inputs, out, *flags, "--plan", "dense") == ["done", "kept"]
    card = weights / "tumor" / "card.json"
    card.write_text(card.read_text().replace("random weights", "other weights"))
    assert resumed(inputs, out, *flags, "--plan", "dense") == ["done", "done"]
    card.write_text(json.dumps(json.loads(card.read_text()) | {"way": "dense", "step": 0.7}))
    assert resumed(inputs, out, *flags) == ["done", "done"]  # each network in its own way
    assert json.loads((out / "a.json").read_text())["plan"] == "abdomen, dense"
    assert resumed(inputs, out, *flags) == ["kept", "kept"]
    assert resumed(inputs, out, *flags, "--step", "0.5") == ["done", "done"]


@pytest.mark.slow
def test_chosen_labels_are_all_that_is_written(inputs: Path, tmp_path: Path, named_weights: Path) -> None:
    out, own = tmp_path / "out", ("--weights", named_weights, "--case", "a")
    flags = (*own, "--save-probabilities", "--format", "nifti,seg.nrrd")
    assert resumed(inputs, out, *flags) == ["done"]
    whole = labels(out / "a.nii.gz")
    assert {1, 2, 4} <= set(np.unique(whole))
    for _ in range(2):
        status = resumed(inputs, out, *flags, "--labels", "aorta, kidney_right")
        record = json.loads((out / "a.json").read_text())
        assert record["chosen"] == ["right_kidney", "aorta"] and set(record["weights"]) == {"organ"}
        assert {entry["name"] for entry in record["labels"].values()} == {"right_kidney", "aorta"}
    assert status == ["kept"]
    found = labels(out / "a.nii.gz")
    assert set(np.unique(found)) == {0, 2, 4}
    np.testing.assert_array_equal(found[whole != 14], np.where(np.isin(whole, (2, 4)), whole, 0)[whole != 14])
    assert sorted(os.listdir(out / "a.probabilities")) == ["aorta.nii.gz", "right_kidney.nii.gz"]
    header = (out / "a.seg.nrrd").read_bytes().partition(b"\n\n")[0]
    assert b"_Name:=aorta" in header and b"_Name:=liver" not in header and header.count(b"_Name:=") == 2
    table = (out / "measurements.csv").read_text()
    assert ",aorta," in table and ",liver," not in table
    assert json.loads((out / "summary.json").read_text())["chosen"] == ["right_kidney", "aorta"]
    assert resumed(inputs, out, *flags, "--labels", "aorta") == ["done"]
    assert resumed(inputs, out, *flags) == ["done"]
    np.testing.assert_array_equal(labels(out / "a.nii.gz"), whole)


@pytest.mark.slow
def test_twenty_bad_scans_among_ten_change_nothing_for_the_ten(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    flags = ("--weights", tiny_weights, *F32)
    for number in range(10):
        save_scan(tmp_path / "good" / f"{number:02d}_good_0000.nii.gz", np.roll(blob, number, 2), (3.0, 2.0, 2.0))
    assert run(tmp_path / "good", tmp_path / "clean", *flags).returncode == 0
    mixed = tmp_path / "mixed"
    shutil.copytree(tmp_path / "good", mixed)
    whole = (mixed / "00_good_0000.nii.gz").read_bytes()
    bad = {
        **{f"cut-{share}": whole[: len(whole) * share // 10] for share in range(10)},
        **{f"flip-{at}": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (2000, 9000, len(whole) - 5)},
        "page": b"<html>404</html>", "pointer": b"version https://git-lfs.github.com/spec/v1\n", "zip": b"PK\x03\x04",
        "twice": gzip.compress(whole), "zeros": bytes(5000), "short": whole[:1], "text": b"\n" * 400,
    }  # fmt: skip
    for name, content in bad.items():
        (mixed / f"{len(name):02d}_bad_{name}_0000.nii.gz").write_bytes(content)
    done = run(mixed, tmp_path / "out", *flags)
    assert done.returncode == 8
    clean = {name: (tmp_path / "clean" / name).read_bytes() for name in label_maps(tmp_path / "clean")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")} == clean
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cases"] == {"done": 10, "kept": 0, "failed": 20, "not_begun": 0}
    assert {one["case"].split("_bad_")[1] for one in summary["failed"]} == set(bad)
    assert all("_0000.nii.gz" in one["error"] and "internal" not in one["error"] for one in summary["failed"])


def workers(pid: int) -> list[int]:
    """The processes that `pid` has started and that are alive."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_scan_that_kills_or_hangs_the_worker_costs_that_scan_only(
    number: signal.Signals, tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    """The signals are those of the kernel out of memory, of a crash, and of a process that stands still."""
    for name in ("a", "c"):
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    save_scan(tmp_path / "in" / "b_0000.nii.gz", np.resize(blob, (600, 60, 72)), (3.0, 2.0, 2.0))  # takes its time
    out, weights = tmp_path / "out", tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    card = weights / "organ" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"window_multiple": [2, 4, 4]}))
    asked = command(tmp_path / "in", out, "--weights", weights)
    process = subprocess.Popen(
        [*asked, "--timeout", "10", "--progress", "json", *F32],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    for line in process.stdout:
        if any(one["number"] == 2 and one["done"] for one in json.loads(line).get("running", [])):
            break  # b is being segmented
    (worker,) = workers(process.pid)
    os.kill(worker, number)
    _, said = process.communicate(timeout=120)
    assert (out / "a.nii.gz").read_bytes() == (out / "c.nii.gz").read_bytes()
    if number == signal.SIGKILL:  # it gets a second try, since one of its networks takes smaller windows
        assert process.returncode == 0
        assert label_maps(out) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
        assert "once more with the least memory" in said
        assert json.loads((out / "b.json").read_text())["fallback"]
        return
    assert process.returncode == 8
    assert label_maps(out) == ["a.nii.gz", "c.nii.gz"]
    cause = "made no progress for 10 s" if number == signal.SIGSTOP else f"was ended by {number.name}"
    assert cause in said and cause in json.loads((out / "b.json").read_text())["error"]


# The command, where networks seem to be on a GPU and fail as after an illegal address: all else that the process asks
# of the GPU would fail as well.
ON_A_LOST_GPU = """
import sys
from dataclasses import replace

from inference import __main__, predictor
from inference.errors import EngineError

def load(self, load=predictor.Predictor._load):
    load(self)
    self.choice = replace(self.choice, device="cuda")

def fail(*_, **__):
    raise EngineError("the engine failed: CUDA error") from RuntimeError()

predictor.Predictor._load, predictor.segment = load, fail
__main__.main()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only workers that are forked fail as well")
def test_a_process_that_may_have_lost_its_gpu_gets_no_other_case(
    inputs: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    (inputs / "c_0000.nii.gz").write_bytes(b"no NIfTI")
    (inputs / "d_0000.nii.gz").write_bytes(b"no NIfTI")
    flags = ("--weights", tiny_weights, "--json", tmp_path / "r.json", *F32)
    program: list[str | Path] = [sys.executable, "-c", ON_A_LOST_GPU, inputs, tmp_path / "out", *flags]
    one = {"OPENBLAS_NUM_THREADS": "1"}  # a process with more threads does not fork
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | one)
    assert done.returncode == 4, done.stderr
    a, b, c, d = json.loads((tmp_path / "r.json").read_text())
    assert all("CUDA error" in one["error"] for one in (a, b))
    assert [one["seconds"]["load"] > 0 for one in (a, b, c, d)] == [True, True, True, False]


def test_a_worker_does_not_outlive_its_supervisor(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    save_scan(tmp_path / "in" / "b_0000.nii.gz", np.resize(blob, (900, 60, 72)), (3.0, 2.0, 2.0))
    asked = command(tmp_path / "in", tmp_path / "out")
    process = subprocess.Popen(
        [*asked, "--weights", tiny_weights, *F32], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout and process.stdout.readline()  # the networks are loaded
    (worker,) = workers(process.pid)
    process.kill()
    process.wait()
    wait(lambda: not Path(f"/proc/{worker}").exists(), "the worker lives")


def test_hashed_names_say_nothing(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    for name in ("a", "b"):
        (inputs / f"{name}_0000.nii.gz").rename(inputs / f"DOE^JANE_{name}_0000.nii.gz")
    (inputs / "DOE^JANE_c_0000.nii.gz").write_bytes(b"no NIfTI")
    (inputs / "DOE^JANE_a_0001.nii.gz").write_bytes(b"another channel")
    out, record = tmp_path / "DOE^JANE_out", tmp_path / "r.json"
    done = run(inputs, out, "--weights", tiny_weights, "--hash-names", "--json", record, *F32)
    assert done.returncode == 8
    texts = [done.stdout, done.stderr, record.read_text(), *(path.read_text() for path in out.glob("*.json"))]
    assert len(texts) == 7
    assert not any("JANE" in text for text in texts)
    name = hashlib.sha256(b"DOE^JANE_a").hexdigest()[:12]
    assert f"[1/3] {name}" in done.stdout and json.loads(record.read_text())[0]["case"] == name


def test_names_in_kept_records_are_hashed_as_well(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    (inputs / "a_0000.nii.gz").rename(inputs / "DOE^JANE_0000.nii.gz")
    out, record = tmp_path / "out", tmp_path / "r.json"
    flags = ("--weights", tiny_weights, "--case", "DOE^JANE", *F32)
    assert run(inputs, out, *flags).returncode == 0
    sidecar = json.loads((out / "DOE^JANE.json").read_text())
    sidecar["warnings"] = ["DOE^JANE_0000.nii.gz is odd", "MUELLER holds IM1.dcm twice"]
    (out / "DOE^JANE.json").write_text(json.dumps(sidecar))
    done = run(inputs, out, *flags, "--resume", "--hash-names", "--json", record)
    assert done.returncode == 0, done.stderr
    texts = (done.stdout, done.stderr, record.read_text(), (out / "summary.json").read_text())
    assert not any(name in text for text in texts for name in ("JANE", "MUELLER", "IM1"))
    name = hashlib.sha256(b"DOE^JANE").hexdigest()[:12]
    (one,) = json.loads(record.read_text())
    assert (one["case"], one["status"]) == (name, "kept")
    assert one["warnings"] == [UNTOLD, UNTOLD]


@pytest.mark.parametrize("wrong", [["", "out"], ["in", ""], ["in", " "], ["in", "out", "--json", ""]])
def test_empty_paths_are_variables_that_are_not_set(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (wrong, ["in", "out", "--weights="]):
        with pytest.raises(SystemExit) as stop:
            parse(arguments)
        assert stop.value.code == 2 and "the path is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["in", "out", "--case", ""])
    assert "the name is empty" in capsys.readouterr().err
    for verb in (["merge", ""], ["compat", "totalsegmentator", "-i", "", "-o", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(verb)
        assert stop.value.code == 2 and "the path is empty" in capsys.readouterr().err


def test_a_link_is_not_replaced_by_records(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    """As /dev/stdout is one, which root could replace for the whole machine."""
    file, link = tmp_path / "log", tmp_path / "link"
    file.touch()
    link.symlink_to(file)
    done = run(inputs, tmp_path / "out", "--weights", tiny_weights, "--json", link)
    assert done.returncode == 7 and link.is_symlink() and not file.read_bytes()
    assert done.stderr == f"error: {link} is a link, and a file would take its place: choose another file for --json\n"


def test_exit_codes_of_what_cannot_start(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    weights = ("--weights", tiny_weights)
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path / "out", *weights).returncode == 2
    assert run(tmp_path / "absent", tmp_path / "out", *weights).returncode == 5
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "not made")
    for taken in ("file", "nowhere"):
        done = run(inputs, tmp_path / taken, *weights)
        assert done.returncode == 7 and f"{taken} exists already and is not a folder" in done.stderr
    done = run(inputs, tmp_path / "file" / "out", *weights)
    assert done.returncode == 7 and "cannot be written by user" in done.stderr
    assert run(inputs, tmp_path / "out", "--weights", tmp_path / "empty").returncode == 9
    assert run(inputs, tmp_path / "out", *weights, "--networks", "heart").returncode == 9
    done = run(inputs, tmp_path / "out", *weights, "--labels", "organ_1,heart")
    assert done.returncode == 9 and not (tmp_path / "out").exists()
    assert done.stderr.startswith("error: no network of this run has a label heart, only organ_1, ")
    done = run(inputs, tmp_path / "out", *weights, "--engine", "onnxruntime", "--precision", "bf16")
    assert done.returncode == 3 and "bf16" in done.stderr
    assert done.stderr.count("\n") == 1  # one clear sentence, no traceback


def test_sigterm_ends_with_143_and_leaves_nothing_half_written(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    for number in range(60):
        save_scan(tmp_path / "in" / f"{number:02d}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    out = tmp_path / "out"
    asked = command(tmp_path / "in", out, "--weights", tiny_weights, *F32)
    process = subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait(lambda: len(list(out.glob("*.nii.gz"))) >= 2, "no case is done")  # now the first one is
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "SIGTERM" in said
    found = label_maps(out)
    assert 0 < len(found) < 60
    for name in found:
        labels(out / name)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["exit_code"] == 143 and summary["cases"]["not_begun"] == 60 - summary["cases"]["done"]


def test_odd_names_reach_the_log_escaped(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    scan = save_scan(tmp_path / "in" / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    scan.rename(os.fsdecode(os.fsencode(scan.parent) + b"/-r\n\x1b[31m\xff_0000.nii.gz"))
    done = run(scan.parent, tmp_path / "out", "--weights", tiny_weights, "--json", tmp_path / "r.json", *F32)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and r"\u001b[31m" in done.stdout
    assert b"-r\n\x1b[31m\xff.nii.gz" in os.listdir(os.fsencode(tmp_path / "out"))
    assert json.loads((tmp_path / "r.json").read_text())[0]["status"] == "done"


def test_a_bar_on_a_terminal(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    import pty
    import termios

    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))  # rows, columns: a bar is not drawn on a screen of size 0
    asked = command(inputs, tmp_path / "out", "--weights", tiny_weights, *F32)
    process = subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(reader, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(reader)
    assert process.wait() == 0
    assert b"1/2 cases" in shown and b" left" in shown


def test_the_record_of_many_cases_is_written_seldom_and_whole(tmp_path: Path, tiny_weights: Path) -> None:
    """Written after each case, it took 155 s for 2,000 empty files where 2 do without it."""
    (tmp_path / "in").mkdir()
    for number in range(300):
        (tmp_path / "in" / f"{number:03d}_0000.nii.gz").touch()
    record = tmp_path / "r.json"
    asked = command(tmp_path / "in", tmp_path / "out", "--json", record)
    began = time.monotonic()
    process = subprocess.Popen(
        [*asked, "--weights", tiny_weights, "--no-sidecar", *F32],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    written = {}
    while process.poll() is None:
        with suppress(FileNotFoundError), record.open() as file:
            written[os.fstat(file.fileno()).st_mtime_ns] = len(json.load(file))
        time.sleep(0.002)
    assert process.returncode == 4
    assert 0 in written.values(), "at the start, to see that it can be"
    assert len(written) <= 3 + (time.monotonic() - began) / 10  # every ten seconds, and at the end
    assert [one["case"] for one in json.loads(record.read_text())] == [f"{number:03d}" for number in range(300)]


def test_a_record_that_cannot_be_written_costs_no_case(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    record = tmp_path / "full" / "r.json"
    record.parent.mkdir()
    asked = command(inputs, tmp_path / "out", "--json", record)
    process = subprocess.Popen(
        [*asked, "--weights", tiny_weights, *F32], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline()  # the networks are loaded
    shutil.rmtree(record.parent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 7
    assert said == f"error: {record} cannot be written: No such file or directory\n"
    assert label_maps(tmp_path / "out") == ["a.nii.gz", "b.nii.gz"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["exit_code"] == 7


@pytest.mark.parametrize(
    ("names", "code"),
    [(",", 2), ("", 2), (" , ", 2), ("organ,organ", 9), ("../organ", 9), ("organ/", 9), (".", 9), ("heart", 9)],
)
def test_names_of_networks_that_are_none(
    names: str, code: int, inputs: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    done = run(inputs, tmp_path / "out", "--weights", tiny_weights, "--networks", names)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(("error: ", "python -m inference: error: argument --networks: "))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "size"), [("2G", 2 * 10**9), ("1.5GB", 15 * 10**8), ("800M", 8 * 10**8), ("9", 9)])
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse(["in", "out", "--max-memory", text]).options.max_memory == size


@pytest.mark.parametrize(
    "wrong",
    [
        ["--step", "0"],
        ["--step", "1.5"],
        ["--threads", "0"],
        ["--plan", "none"],
        ["--max-memory", "0"],
        ["--max-memory", "2 bags"],
        ["--workers", "0"],
        ["--progress", "bars"],
        ["--resume", "--no-sidecar"],
    ],
)
def test_flags_that_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["in", "out", *wrong])
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_scans_in_folders_of_their_own(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    own = ("--weights", tiny_weights, *F32)
    assert run(inputs, tmp_path / "flat", *own).returncode == 0
    for case in "ab":
        (inputs / case).mkdir()
        (inputs / f"{case}_0000.nii.gz").rename(inputs / case / "ct.nii.gz")
    for again, said in (((), "s, "), (("--resume",), "kept, ")):
        done = run(inputs, tmp_path / "out", *own, "--scans", "*/ct.nii.gz", *again)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"/2] {case}: " in line and said in line for case, line in zip("ab", _cases(done), strict=True))
    for name in ("a.nii.gz", "b.nii.gz", "measurements.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "flat" / name).read_bytes()


def _cases(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("name", ["labels.nii.gz", "labels.MHA", "labels.seg.dcm", f"{300 * 'l'}.nii.gz"])
def test_the_name_of_a_file_is_no_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["in", tmp_path / name])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "argument OUTPUTS: this is the name of a file: give a folder" in said and name not in said
    with suppress(OSError):  # of a name that is too long
        (tmp_path / name).mkdir()
        assert parse(["in", tmp_path / name]).outputs == tmp_path / name


def test_dicom_that_cannot_be_written_is_said_before_the_first_case(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bare = [sys.executable, "-S", "-m", "inference", str(inputs), str(out), "--format", "nifti,seg"]  # without packages
    done = subprocess.run(bare, capture_output=True, text=True, check=False, cwd=ROOT)
    why = "labels in DICOM need highdicom and contourpy, which are not installed: "
    assert (done.returncode, done.stderr) == (3, f'error: {why}pip install ".[dicom]" in the checkout\n')
    assert not out.exists()


@pytest.mark.parametrize(
    ("flag", "text", "wanted"),
    [
        ("--step", "half", "a number above 0 and at most 1"),
        ("--timeout", "10 min", "a number of seconds above 0"),
        ("--timeout", "inf", "a number of seconds above 0"),
        ("--threads", "all", "a whole number of at least 1"),
        ("--workers", "2.5", "a whole number of at least 1"),
    ],
)
def test_what_is_no_number_is_a_sentence(flag: str, text: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["in", "out", flag, text])
    assert f"argument {flag}: {text!r} is not {wanted}" in capsys.readouterr().err
