"""What a scan is said to take of memory is what it may take, where the kernel kills who takes more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import Predictor
from inference.cards import read_cards, ways_of
from inference.engines.choose import Choice
from inference.errors import DeviceError, MemoryBudgetError
from inference.estimate import PREVIEW, estimate, fitting
from inference.formats.reading import peek, read_scan
from inference.options import DENSE, LEAST_VOXELS
from inference.preview import folder as preview
from inference.record import Record
from inference.scan import Grid, Scan
from tests.conftest import ROOT
from tests.inference.dicom import RLE, packed_in, series

CHOICE = Choice("cpu", "openvino", "f32", ())
SAMPLE = ROOT / "docs" / "sample" / "HCC_048_0000.nii.gz"
MB = 10**6


def header(planes: int, voxel_bytes: tuple[int, int] = (2, 2)) -> Scan:
    return Scan((), Grid.of((planes, 512, 512), (1.0, 0.8, 0.8), "LPS"), voxel_bytes=voxel_bytes)


def test_more_planes_wider_voxels_and_more_networks_take_more(tiny_weights: Path) -> None:
    cards = read_cards(tiny_weights, None)

    def of(scan: Scan, networks: int = 2) -> int:
        return estimate(scan, cards[:networks], [DENSE] * networks, CHOICE, 100 * MB)

    voxels = 100 * 512 * 512
    assert of(header(200)) > of(header(100)) > 100 * MB
    assert of(header(100, (4, 8))) - of(header(100)) >= 2 * voxels  # held as float32
    assert of(header(100)) - of(header(100), 1) >= 3 * voxels  # labels of both networks, and of both together


def test_instance_norms_take_more_where_they_are_summed_in_parts() -> None:
    """A residual encoder of 32 features takes 5.85 bytes for each number that it holds at once, and 4.73 without."""
    (card,) = read_cards(ROOT / "weights", None)
    numbers = (card.activations or 0) * prod(card.patch)

    def of(multiple: tuple[int, int, int] | None, precision: str) -> int:
        one, choice = replace(card, window_multiple=multiple), Choice("cpu", "openvino", precision, ())
        return estimate(header(100), [one], [DENSE], choice, 0)

    assert of(None, "f32") - of((8, 8, 8), "f32") >= (5.85 - 4.73) * numbers > 0
    assert of(None, "bf16") == of((8, 8, 8), "bf16")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_logits_of_all_folds_are_held(precision: str) -> None:
    """Five folds of the shipped network take 0.7 GB more than one in bfloat16, and 1.3 GB more in float32."""
    (card,) = read_cards(ROOT / "weights", None)
    choice = Choice("cpu", "openvino", precision, ())
    one, five = (estimate(header(100), [replace(card, folds=folds)], [DENSE], choice, 0) for folds in (1, 5))
    logits = 4 * len(card.labels) * prod(card.patch)
    assert five - one >= 4 * logits * (1 if precision == "f32" else 0.5)


@pytest.mark.parametrize("shape", [(158, 158, 158), (500, 256, 256)])  # 4 million blocks; many voxels, turned
def test_a_preview_takes_no_more_than_is_estimated_for_it(shape: tuple[int, int, int], tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 1000, shape, np.int16)
    labels, grid = np.ones(shape, np.uint8), Grid.of(shape, (1.0, 1.0, 1.0), "RAS")
    tracemalloc.start()
    try:
        preview.write(tmp_path / "x.preview", voxels, True, labels, grid, {1: "liver"})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert PREVIEW / 4 < most < PREVIEW


def test_a_preview_counts_where_nothing_takes_more(tiny_weights: Path) -> None:
    cards, shipped = read_cards(tiny_weights, ["organ"]), read_cards(ROOT / "weights", None)

    def more(cards: list[Any], planes: int) -> int:
        with_it, without = (
            estimate(header(planes), cards, [DENSE] * len(cards), CHOICE, 0, asked) for asked in (True, False)
        )
        return with_it - without

    assert 0 < more(cards, 1000) <= PREVIEW
    assert more(shipped, 100) == 0


def test_windows_get_smaller_until_they_fit_and_then_the_scan_is_refused() -> None:
    cards = read_cards(ROOT / "weights", None)
    scan, ways = header(300), ways_of(cards, None, 0.5)
    most = estimate(scan, cards, ways, CHOICE, 0)
    assert fitting(scan, cards, ways, CHOICE, 0, most) == (ways, most)
    half, need = fitting(scan, cards, ways, CHOICE, 0, most - 1)
    assert half and half[0].most_voxels == ways[0].most_voxels // 2 and need < most
    smallest = tuple(replace(way, most_voxels=LEAST_VOXELS) for way in ways)
    least = estimate(scan, cards, smallest, CHOICE, 0)
    assert fitting(scan, cards, ways, CHOICE, 0, least) == (smallest, least)
    assert fitting(scan, cards, ways, CHOICE, 0, least - 1) == (None, least)
    patches = [replace(card, window_multiple=None) for card in cards]
    need = estimate(scan, patches, ways, CHOICE, 0)
    assert fitting(scan, patches, ways, CHOICE, 0, need - 1) == (None, need)  # nothing is smaller than a patch


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<u2", "<f4", "<f8"])
def test_what_a_voxel_takes_is_in_the_header(dtype: str, tmp_path: Path, blob: np.ndarray) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(blob.clip(0, 255).transpose(2, 1, 0).astype(dtype), np.diag([2.0, 2, 3, 1]))
    nib.save(image, tmp_path / "x.nii")
    held, most = peek(tmp_path / "x.nii").voxel_bytes
    assert held == read_scan(tmp_path / "x.nii", accept=True).voxels.itemsize
    assert most >= max(held, np.dtype(dtype).itemsize)


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({"BitsStored": 12, "HighBit": 11}, 2),
        ({"BitsStored": 12, "HighBit": 11, "uneven": True}, 2),
        ({}, 4),  # 16 bits and an intercept of -1024 may not fit into int16
        ({"scaled": (0.5, -1024)}, 4),
        ({"scaled": (0.5, -1024), "uneven": True}, 4),
    ],
)
def test_what_a_voxel_of_dicom_takes_is_in_the_headers(changes: dict[str, Any], held: int, tmp_path: Path) -> None:
    changes = dict(changes)
    uneven = changes.pop("uneven", False)
    hu = np.random.default_rng(0).integers(-900, 900, (64, 128, 128)).astype(np.int16)

    def each(z: int) -> dict[str, Any]:
        place = {"ImagePositionPatient": f"-20\\-30\\{3 * z + 4 * (z > 40)}"} if uneven else {}
        return {"PixelSpacing": "2\\2"} | changes | place

    series(tmp_path / "s", hu, each)
    said = peek(tmp_path / "s", uneven)
    assert said.voxel_bytes[0] == held
    tracemalloc.start()
    try:
        scan = read_scan(tmp_path / "s", resample=uneven)
        kept, most = (taken / prod(scan.grid.shape) for taken in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert said.grid.shape == scan.voxels.shape and scan.resampled == uneven
    assert kept <= held + 0.2 and most <= said.voxel_bytes[1]


def test_processes_that_unpack_are_in_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hu = np.random.default_rng(0).integers(-900, 900, (64, 64, 64)).astype(np.int16)
    for file in series(tmp_path / "s", hu):
        file.write_bytes(packed_in(file.read_bytes(), RLE))

    def most(threads: int) -> int:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        return peek(tmp_path / "s").voxel_bytes[1] * hu.size

    assert most(2) - most(1) >= 2 * 60 * MB


def test_arrays_are_held_to_the_limit_too(tiny_weights: Path, blob: np.ndarray) -> None:
    scan = Scan.of(blob, (3.0, 2.0, 2.0), "LPS")
    with pytest.raises(
        MemoryBudgetError, match=r"^the scan is too large .* up to \d\.\d\d GB are needed, and the limit is 0\.01 GB"
    ):
        Predictor(tiny_weights, device="cpu", threads=1, max_memory=10 * MB).segment(scan)
    _, record = Predictor(tiny_weights, device="cpu", threads=1, max_memory=10**12).segment(scan)
    assert record.memory_limit_mb == 10**6 and record.memory_estimate_mb and record.status == "done"


def test_without_a_limit_nothing_is_estimated_and_a_container_sets_one(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference import budget as module

    predictor, scan = Predictor(tiny_weights, device="cpu", threads=1), header(10)
    monkeypatch.setattr(module, "container_budget", lambda: sys.maxsize)
    assert (
        predictor.budget.fitting(scan, predictor.ways, record := Record()) == predictor.ways
        and record.memory_limit_mb is None
    )
    monkeypatch.setattr(module, "container_budget", lambda: 1)
    with pytest.raises(MemoryBudgetError):
        predictor.budget.fitting(header(2000), predictor.ways, Record())


def test_a_limit_is_of_the_cpu(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference import predictor as module

    monkeypatch.setattr(module, "choose", lambda *_: replace(CHOICE, device="cuda"))
    monkeypatch.setattr(module, "array_library", lambda *_: np)
    monkeypatch.setattr(module, "load", lambda *_: lambda batch: batch)
    with pytest.raises(DeviceError, match="--device cpu"):
        Predictor(tiny_weights, max_memory=10**9)


@pytest.fixture
def cgroup() -> Iterator[Callable[[int], Path]]:
    """Makes a cgroup with a limit (bytes), or skips."""
    made: list[Path] = []

    def make(limit: int) -> Path:
        root = Path("/sys/fs/cgroup")
        second = (root / "cgroup.controllers").exists()
        folder = root / ("" if second else "memory") / f"viscera-test-{os.getpid()}-{len(made)}"
        try:
            if second:
                (root / "cgroup.subtree_control").write_text("+memory")
            folder.mkdir()
            made.append(folder)
            (folder / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        return folder

    yield make
    for folder in made:
        folder.rmdir()


def run(out: Path, limit: int, group: Path | None, *arguments: Any) -> tuple[int, dict[str, Any], str]:
    """The command with --max-memory, in a cgroup: exit code, the record of its only case, stderr."""
    enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
    command = [sys.executable, "-m", "inference", *map(str, (*arguments, out, "--json", out.with_suffix(".json")))]
    done = subprocess.run(
        ["bash", "-c", f'{enter}exec "$@"', "bash", *command, "--max-memory", str(limit), "--threads", "1"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    (record,) = json.loads(out.with_suffix(".json").read_text())
    return done.returncode, record, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("networks", ["tiny", "shipped"])
def test_what_is_accepted_stays_below_the_limit_that_the_kernel_holds_it_to(
    networks: str, tmp_path: Path, tiny_weights: Path, cgroup: Callable[[int], Path]
) -> None:
    weights = tiny_weights if networks == "tiny" else ROOT / "weights"
    how = ("--engine", "openvino", "--precision", "f32", "--device", "cpu", "--preview")
    arguments = (SAMPLE, "--weights", weights, *how)
    code, free, _ = run(tmp_path / "free", 10**12, None, *arguments)
    need = round(free["memory_estimate_mb"] * MB) + MB  # one run's base is not quite another's
    assert code == 0 and free["fallback"] == [] and free["peak_memory_mb"] < free["memory_estimate_mb"]

    code, record, said = run(tmp_path / "held", need, cgroup(need), *arguments)
    assert (code, record["fallback"], record["output_sha256"]) == (0, [], free["output_sha256"]), said

    less = need - 30 * MB
    code, record, said = run(tmp_path / "less", less, cgroup(less), *arguments)
    if networks == "tiny":
        assert code == 4 and less < record["memory_estimate_mb"] * MB
        needed = f"{record['memory_estimate_mb'] / 1e3:.2f}"
        assert f"HCC_048_0000.nii.gz is too large for these networks: up to {needed} GB" in said
        assert f"the limit is {less / 1e9:.2f} GB" in said
    else:
        assert code == 0 and record["memory_estimate_mb"] * MB <= less, said
        assert record["fallback"] == [
            f"memory is limited to {less / 1e9:.2f} GB: in windows of 2,000,000 voxels at most"
        ]
