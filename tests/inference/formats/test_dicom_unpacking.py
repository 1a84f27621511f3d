"""Many packed slices are unpacked in several processes, with the same voxels and the same errors as in one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import ScanError
from inference.formats.dicom import unpacking
from inference.formats.dicom.headers import headers_of, quiet
from inference.formats.dicom.pixels import planes
from inference.formats.dicom.slices import Slice
from inference.formats.reading import read_scan
from tests.inference.dicom import packed_in, series
from tests.inference.formats.test_dicom_folders import body

RLE = "1.2.840.10008.1.2.5"


@pytest.fixture
def packed(tmp_path: Path) -> list[Path]:
    """A series of 70 slices, of which some are scaled to numbers that are not whole."""
    hu = body(70).repeat(4, axis=1).repeat(4, axis=2)
    scaled: dict[str, Any] = {"PixelSpacing": "1\\1"}
    files = series(tmp_path / "s", hu, lambda z: scaled | ({"scaled": (0.5, -1024)} if z > 60 else {}))
    for file in files:
        file.write_bytes(packed_in(file.read_bytes(), RLE))
    return files


def test_the_same_voxels_come_from_several_processes(packed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    started: list[int] = []
    start = unpacking._start
    monkeypatch.setattr(unpacking, "_start", lambda slices: started.append(len(slices)) or start(slices))  # type: ignore[func-returns-value]
    slices = headers_of(packed)
    with quiet():
        expected = dict(planes(slices))
    found = dict(unpacking.planes_of(slices))
    assert started == [35, 35] and sorted(found) == list(range(70))
    assert all(np.array_equal(found[z], expected[z]) and found[z].dtype == expected[z].dtype for z in found)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started.clear()
    assert len(dict(unpacking.planes_of(slices))) == 70 and not started


@pytest.mark.parametrize(("told", "count"), [("4,2", 2), ("1,8", 0), ("", 2), ("many", 2)])
def test_threads_that_are_told_in_another_way(
    told: str, count: int, packed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(unpacking, "usable_cpus", lambda: 4)
    assert unpacking._processes(headers_of(packed)) == count


def test_no_process_is_left_where_another_cannot_start(packed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    started: list[subprocess.Popen[bytes]] = []
    start = unpacking._start

    def second_fails(slices: Sequence[Slice]) -> subprocess.Popen[bytes]:
        if started:
            raise OSError("no more processes")
        started.append(start(slices))
        return started[0]

    monkeypatch.setattr(unpacking, "_start", second_fails)
    with pytest.raises(OSError, match="no more processes"):
        dict(unpacking.planes_of(headers_of(packed)))
    assert started[0].returncode is not None


def test_no_thread_is_left_where_nobody_wants_the_rest(packed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = threading.active_count()
    rest = unpacking.planes_of(headers_of(packed))
    assert isinstance(rest, Generator)
    next(rest)
    time.sleep(1)  # until they wait for room
    rest.close()
    assert threading.active_count() == before


def test_a_process_that_is_gone_before_its_order_is_lack_of_memory(
    packed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MemoryError):
        dict(unpacking.planes_of(headers_of(packed)))


def test_a_damaged_slice_fails_the_series_by_name(packed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    data = bytearray(packed[50].read_bytes())
    data[-600:-8] = bytes(592)
    packed[50].write_bytes(data)
    with pytest.raises(ScanError, match=r"^s holds 050.dcm, which is damaged"):
        read_scan(packed[0].parent)
