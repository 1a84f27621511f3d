"""What only shows in the thousands: damage anywhere, headers of any bytes, kills at any time, hours of work.

CI takes a sample; `make soak` sets SOAK=1 and takes all, and its log is docs/soak.log.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from isal import igzip
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from inference import machine
from inference.errors import CaseError
from inference.formats.reading import read_scan
from tests.conftest import ROOT, wait
from tests.inference.formats.test_nifti import SHAPE, file_bytes, header

SOAK = bool(os.environ.get("SOAK"))
FLAGS = ("--device", "cpu", "--engine", "onnxruntime", "--threads", "1")


def peak() -> float:
    """MB of memory; Linux says how many."""
    most = machine.peak_memory_mb()
    assert most
    return most


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the leader of a group; the kernel ends its worker a moment later, which is waited for."""

    def is_gone() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    process.kill()
    process.wait()
    wait(is_gone, "a worker lives")


def say(text: str) -> None:
    """A line for the log of `make soak`, which pytest shows for tests that passed as well (-rP)."""
    print(text)


def test_no_cut_and_no_flipped_bit_is_read_as_something_else(tmp_path: Path) -> None:
    """2,000 in all, of a gzip file of 12 MB: refused, or the very same voxels (a flip in the time of the header)."""
    rng = np.random.default_rng(0)
    big = np.full((98, 300, 420) if SOAK else (8, 300, 420), -1000, np.int16)
    big[:, 20:280, 20:400] = rng.normal(50, 40, big[:, 20:280, 20:400].shape)
    made = header()
    made.set_data_shape(big.shape[::-1])
    whole = igzip.compress(file_bytes(made, big), 1, mtime=0)
    path = tmp_path / "x_0000.nii.gz"
    path.write_bytes(whole)
    expected = read_scan(path)
    refused = same = 0
    for number in range(2000 if SOAK else 60):
        damaged = bytearray(whole)
        if number % 3 == 0:
            damaged = damaged[: rng.integers(0, len(whole))]
        else:
            at = int(rng.integers(0, len(whole) if number % 3 == 1 else 40))
            damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = read_scan(path)
        except CaseError:
            refused += 1
        else:
            assert np.array_equal(found.voxels, expected.voxels), f"damage {number} was read as another scan"
            same += 1
    say(f"gzip of {len(whole) / 1e6:.1f} MB: {refused} damaged files refused, {same} read as the same voxels, 0 others")
    assert refused > 0.9 * (refused + same)


@pytest.mark.slow
def test_no_header_and_no_stream_of_any_bytes_gets_through_unchecked(tmp_path: Path) -> None:
    """100,000 in all: an answer or a CaseError, no other exception, little memory, no geometry that is not finite."""
    rng = np.random.default_rng(1)
    hu = rng.integers(-1000, 300, SHAPE).astype(np.int16)
    bases = [
        file_bytes(header(kind, order, dtype), hu)
        for kind in (Nifti1Header, Nifti2Header)
        for order in "<>"
        for dtype in (np.int16, np.float32)
    ]
    path = tmp_path / "x_0000.nii.gz"
    machine.reset_peak_memory()
    before = peak()
    read = refused = 0
    sentences: set[str] = set()
    count = 100_000 if SOAK else 5000
    for number in range(count):
        data = bytearray(bases[number % len(bases)])
        size = int(rng.integers(1, 9))
        for at in rng.integers(0, min(len(data), 560), size):
            data[at] = rng.integers(256) if rng.random() < 0.7 else rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        if rng.random() < 0.15:  # whole fields, with the values that break programs
            at = int(rng.integers(0, 86)) * 4
            data[at : at + 4] = np.float32(rng.choice([np.nan, np.inf, -np.inf, 1e38, -1e-38, 0.0])).tobytes()
        if rng.random() < 0.1:
            data = data[: rng.integers(0, len(data) + 1)]
        if number % 2:
            data = bytearray(igzip.compress(bytes(data), 0))
            if rng.random() < 0.3:
                data[rng.integers(0, len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            scan = read_scan(path)
        except CaseError as error:
            refused += 1
            sentences.add(str(error))
        else:
            read += 1
            assert np.isfinite(scan.grid.affine).all() and np.isfinite(scan.voxels).all()
            assert all(0.05 <= mm <= 30 for mm in scan.grid.spacing)
    grown = peak() - before
    say(f"fuzzing: {count} files, {read} read, {refused} refused, 0 other exceptions, {grown:.1f} MB of memory at most")
    assert all(text and "\n" not in text for text in sentences)
    assert read + refused == count and read > 0.02 * count
    assert grown < 100


@pytest.mark.slow
def test_killed_at_any_time_nothing_is_half_written_and_resume_ends_the_same(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    """500 kills in all, of the supervisor and its worker."""
    for name in "abc":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    command: list[str | Path] = [sys.executable, "-m", "inference", tmp_path / "in"]
    flags: list[str | Path] = ["--weights", tiny_weights, "--resume", *FLAGS]
    begin = time.monotonic()
    subprocess.run([*command, tmp_path / "whole", *flags], check=True, cwd=ROOT, capture_output=True)
    takes = time.monotonic() - begin
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.nii.gz")}
    rng = np.random.default_rng(2)
    out, kills, finished = tmp_path / "out", 500 if SOAK else 12, 0
    for _ in range(kills):
        process = subprocess.Popen(
            [*command, out, *flags],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0, takes))
        kill(process)
        there = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
        assert there.items() <= whole.items(), "a label map under its final name is not whole"
        for path in out.glob("[!.]*.json"):
            json.loads(path.read_bytes())
        if there == whole:
            finished += 1
            for path in out.iterdir():
                path.unlink()
    done = subprocess.run([*command, out, *flags], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == whole
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    say(f"{kills} kills, {finished} of them after the last case: no broken file, the same bytes when resumed")


@pytest.mark.slow
def test_many_cases_in_one_process_take_no_more_than_a_few(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    """300 cases in all: memory, descriptors and threads of the worker, and the time of the last ones."""
    count = 300 if SOAK else 40
    scan = save_scan(tmp_path / "scan.nii.gz", np.resize(blob, (60, 60, 72)), (3.0, 2.0, 2.0))
    (tmp_path / "in").mkdir()
    for number in range(count):
        (tmp_path / "in" / f"{number:03d}_0000.nii.gz").symlink_to(scan)
    command: list[str | Path] = [sys.executable, "-m", "inference", tmp_path / "in", tmp_path / "out"]
    record = tmp_path / "r.json"
    process = subprocess.Popen(
        [*command, "--weights", tiny_weights, "--json", record, *FLAGS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    seen: list[tuple[float, int, int]] = []
    assert process.stdout
    for line in process.stdout:
        if line.startswith("[") and not line.startswith(f"[{count}/"):  # after the last case the worker ends
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            folder = Path("/proc") / children[0]
            resident = int((folder / "statm").read_text().split()[1]) * 4096 / 1e6
            seen.append((resident, len(os.listdir(folder / "fd")), len(os.listdir(folder / "task"))))
    assert process.wait() == 0
    memory, descriptors, threads = zip(*seen, strict=True)
    start = 20
    seconds = [one["seconds"]["total"] for one in json.loads(record.read_text())]
    part = max(count // 6, 5)
    first, last = statistics.median(seconds[1 : part + 1]), statistics.median(seconds[-part:])
    say(
        f"{count} cases: memory {memory[start]:.1f} MB after case {start}, {memory[-1]:.1f} MB at the end; descriptors "
        f"{descriptors[start]} and {descriptors[-1]}, threads {threads[start]} and {threads[-1]}; median seconds of "
        f"the first {part} {first:.4f}, of the last {last:.4f}"
    )
    # The least of several: the voxels of the next scan may be there already.
    assert min(memory[-part:]) < 1.02 * min(memory[start : start + part])
    assert min(descriptors[-part:]) <= min(descriptors[:part]) + 1  # the next scan may be open already
    assert len(set(threads[start:])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_three_runs_are_the_same_to_the_bit(
    engine: str, tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    pytest.importorskip(engine)
    scan = save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    flags: list[str | Path] = ["--weights", tiny_weights, "--device", "cpu", "--engine", engine, "--threads", "2"]
    found = set()
    for number in range(3):
        command: list[str | Path] = [sys.executable, "-m", "inference", scan, tmp_path / str(number), *flags]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        found.add((tmp_path / str(number) / "x.nii.gz").read_bytes())
    assert len(found) == 1


def test_what_is_hidden_in_a_scan_stays_in_it(tmp_path: Path, blob: np.ndarray, tiny_weights: Path) -> None:
    """A canary in every text field, in an extension, in gzip's name and comment, and in the path."""
    canary = b"DOE^JANE"
    made = header(vox_offset=352 + 32)
    for name in ("data_type", "db_name", "descrip", "aux_file", "intent_name"):
        made[name] = canary
    made.set_data_shape(blob.shape[::-1])
    extension = bytes([1, 0, 0, 0]) + (32).to_bytes(4, "little") + (6).to_bytes(4, "little") + canary.ljust(24)
    data = file_bytes(made, blob, extension)
    assert data.count(canary) == 6
    member = igzip.compress(data, 1, mtime=0)
    # RFC 1952: FLG bits 3 and 4 announce a name and a comment behind the ten bytes of the header.
    packed = member[:3] + bytes([8 | 16]) + member[4:10] + canary + b"\0" + canary + b"\0" + member[10:]
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    (folder / "x_0000.nii.gz").write_bytes(packed)
    (folder / "y_0000.nii.gz").write_bytes(packed[: len(packed) // 2])
    out = tmp_path / "out"
    command: list[str | Path] = [sys.executable, "-m", "inference", folder, out, "--weights", tiny_weights, *FLAGS]
    done = subprocess.run([*command, "--json", tmp_path / "r.json"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 8, done.stderr
    files = [tmp_path / "r.json", *out.iterdir()]
    assert {path.name for path in files} == {
        "r.json",
        "x.nii.gz",
        "x.json",
        "y.json",
        "summary.json",
        "measurements.csv",
    }
    for content in (done.stdout, done.stderr, *(path.read_bytes() for path in files)):
        assert canary not in content and b"JANE" not in content
    assert canary not in igzip.decompress((out / "x.nii.gz").read_bytes())
