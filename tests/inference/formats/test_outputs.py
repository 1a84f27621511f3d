"""What must not be written over, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inference.errors import OutputError, UnwrittenError
from inference.formats.outputs import (
    check_labels,
    check_records,
    forget_copy,
    in_the_way,
    input_files,
    make_room,
    make_writable,
)
from inference.formats.recorded import are_records, is_record, is_summary, wrote
from tests.conftest import ROOT

RECORD = {"case": "x", "status": "done", "error": None, "program": "0.1.0"}
SUMMARY = {"program": "0.1.0", "started": "", "ended": "", "exit_code": 0, "cases": {}}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with one scan."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.nii.gz").write_bytes(b"scan")
    (tmp_path / "out").mkdir()
    return tmp_path / "in"


@pytest.fixture
def mounted(scans: Path) -> Iterator[Path]:
    """The folder with the scan, mounted a second time."""
    again = scans.parent / "again"
    again.mkdir()
    if subprocess.run(["mount", "--bind", scans, again], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    yield again
    subprocess.run(["umount", again], check=True)


def refused(scans: Path, labels: Path) -> bool:
    try:
        check_labels(labels, lambda: input_files(scans, scans.parent / "weights"))
    except OutputError as error:
        return "a label map would take its place" in str(error)
    return False


def same(scans: Path) -> Path:
    return scans


def dotted(scans: Path) -> Path:
    return scans / ".." / "out" / ".." / "in"


def linked(scans: Path) -> Path:
    (scans.parent / "link").symlink_to(scans)
    return scans.parent / "link"


def with_link_to_the_scan(scans: Path) -> Path:
    (scans.parent / "out" / "x.nii.gz").symlink_to(scans / "x.nii.gz")
    return scans.parent / "out"


def with_hard_link(scans: Path) -> Path:
    os.link(scans / "x.nii.gz", scans.parent / "out" / "x.nii.gz")
    return scans.parent / "out"


def where_the_link_leads(scans: Path) -> Path:
    (scans / "x.nii.gz").rename(scans.parent / "out" / "x.nii.gz")
    (scans / "x_0000.nii.gz").symlink_to(scans.parent / "out" / "x.nii.gz")
    return scans.parent / "out"


def with_a_broken_link(scans: Path) -> Path:
    (scans / "x.nii.gz").unlink()
    (scans / "x.nii.gz").symlink_to("nowhere")
    return scans


@pytest.mark.parametrize(
    "outputs",
    [same, dotted, linked, with_link_to_the_scan, with_hard_link, where_the_link_leads, with_a_broken_link],
)
def test_no_label_map_takes_the_place_of_an_input(outputs: Callable[[Path], Path], scans: Path) -> None:
    folder = outputs(scans)
    assert refused(scans, folder / "x.nii.gz")
    assert not refused(scans, folder / "y.nii.gz")
    assert not refused(scans, scans.parent / "other" / "x.nii.gz")


def test_nor_where_the_inputs_are_mounted_twice(scans: Path, mounted: Path) -> None:
    assert refused(scans, mounted / "x.nii.gz") and refused(mounted, scans / "x.nii.gz")


def test_nor_of_what_lies_beside_a_scan_that_is_given_alone(scans: Path) -> None:
    (scans / "y.nii.gz").write_bytes(b"reference")
    assert refused(scans / "x.nii.gz", scans / "x.nii.gz") and refused(scans / "x.nii.gz", scans / "y.nii.gz")


def test_a_folder_may_be_its_own_output_a_second_time(scans: Path) -> None:
    labels = scans / "y.nii.gz"
    labels.write_bytes(b"labels")
    assert refused(scans, labels)
    digest = hashlib.sha256(b"labels").hexdigest()
    (scans / "y.json").write_text(json.dumps(RECORD | {"output_sha256": digest}))
    assert not refused(scans, labels)
    labels.write_bytes(b"corrected by hand")
    assert refused(scans, labels)


@pytest.mark.parametrize("number", range(9))
def test_json_replaces_nothing_but_a_list_of_records(number: int, scans: Path) -> None:
    path = scans.parent / "r.json"
    contents: list[Any] = [
        {"mine": 1}, [1, 2], [{"case": "x", "dice": 0.9}], RECORD, SUMMARY, [RECORD, {"mine": 1}], "text", b"\xff\x8b",
        b"[" * 100_000,
    ]  # fmt: skip
    content = contents[number]
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"r.json exists already and was not written by this program"):
        check_records(path, [], set())
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["[]", json.dumps([RECORD]), json.dumps([RECORD | {"labels_version": 2}] * 3), ""])
def test_json_replaces_records_of_any_version(content: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content)
    check_records(tmp_path / "r.json", [], set())


def test_json_takes_no_place_of_an_input_or_another_output(scans: Path) -> None:
    inputs = input_files(scans, scans.parent / "weights")
    out = scans.parent / "out"
    with pytest.raises(OutputError, match="x.nii.gz exists already"):
        check_records(scans / "x.nii.gz", [], inputs)
    (scans / "empty_0000.nii.gz").touch()
    with pytest.raises(OutputError, match="empty_0000.nii.gz exists already"):
        check_records(scans / "empty_0000.nii.gz", [], input_files(scans, scans))
    (scans.parent / "link").symlink_to(out)
    for path in (out / "x.json", out / ".." / "out" / "x.json", scans.parent / "link" / "x.json"):
        with pytest.raises(OutputError, match="another output of this run"):
            check_records(path, [out / "x.nii.gz", out / "x.json"], inputs)
    (out / "x.json").write_text(json.dumps(RECORD))  # ours: to say that it is somebody else's would be wrong
    with pytest.raises(OutputError, match="another output of this run"):
        check_records(out / "x.json", [out / "x.nii.gz", out / "x.json"], inputs)
    check_records(out / "y.json", [out / "x.nii.gz", out / "x.json"], inputs)


def test_json_is_no_folder_no_pipe_no_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is a FIFO, not a file"),
        (Path("/dev/null"), "is a device, not a file"),
    ):
        with pytest.raises(OutputError, match=why):
            check_records(path, [], set())


def test_records_and_summaries_are_known_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert in_the_way(path, is_record) is None
    for kind, document in ((is_record, RECORD), (is_summary, SUMMARY), (are_records, [RECORD])):
        path.write_text(json.dumps(document))
        assert [other for other in (is_record, is_summary, are_records) if not in_the_way(path, other)] == [kind]


def test_labels_of_this_program_go_and_all_others_are_renamed(tmp_path: Path) -> None:
    labels, record = tmp_path / "x.nii.gz", tmp_path / "x.json"
    assert make_room([labels]) == {}
    labels.write_bytes(b"labels")
    record.write_text(json.dumps(RECORD | {"output_sha256": hashlib.sha256(b"labels").hexdigest()}))
    assert wrote(labels)
    assert make_room([labels]) == {}
    assert os.listdir(tmp_path) == []

    record.write_text('{"mine": 1}')
    for name in ("x.nii.gz.before", "x.nii.gz.2.before"):
        labels.write_bytes(b"by hand")
        before = make_room([labels])[labels]
        assert before == tmp_path / name and before.read_bytes() == b"by hand"
    assert not forget_copy(before, hashlib.sha256(b"by hand").hexdigest())
    assert forget_copy(tmp_path / "x.nii.gz.before", hashlib.sha256(b"labels").hexdigest())
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.nii.gz.before"]
    assert record.read_text() == '{"mine": 1}'


def test_a_folder_in_the_place_of_labels_stays(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").mkdir()
    with pytest.raises(UnwrittenError, match="x.nii.gz cannot be written: a folder has that name"):
        make_room([tmp_path / "x.nii.gz"])
    assert (tmp_path / "x.nii.gz").is_dir()


def test_what_a_killed_run_left_of_its_probe_is_gone_after_the_next(tmp_path: Path) -> None:
    for name in (".viscera.probe", "..viscera.probe.4711.part"):
        (tmp_path / name).write_bytes(b"")
    assert make_writable(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_runs_that_begin_in_one_folder_at_once_do_not_hinder_each_other(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from inference.formats.outputs import make_writable
while time.time() < {time.time() + 1.5!r}:
    make_writable(Path({str(tmp_path)!r}))
"""
    runs = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)]
    assert [run.communicate()[1] for run in runs] == [b""] * 4
    assert list(tmp_path.iterdir()) == []


def test_processes_of_one_number_as_in_containers_may_begin_in_one_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:  # all have this process's number
        assert list(pool.map(lambda _: make_writable(tmp_path / "out"), range(64))) == [None] * 64
    assert os.listdir(tmp_path / "out") == []
