"""What several tests need: shared data where it is there, and small networks with random weights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings

from tests.made.networks import STRUCTURES, rename, write_model

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ROOT / "tests" / "networks"

# Laws (tests/inference/test_laws.py) are tried on the same examples each time, and by `make soak` on many new ones.
settings.register_profile("check", max_examples=50, derandomize=True, database=None, deadline=None)
settings.register_profile("soak", max_examples=2000, database=None, deadline=None)
SOAK = bool(os.environ.get("SOAK"))
settings.load_profile("soak" if SOAK else "check")


def command(*arguments: Any) -> list[str]:
    """What starts the program of this checkout, with ROOT as its folder."""
    return [sys.executable, "-m", "inference", *map(str, arguments)]


def wait(is_so: Callable[[], object], otherwise: str, seconds: float = 60) -> None:
    """Wait until something is so; an AssertionError with the words of `otherwise` after so many seconds, which are many
    more than it takes: a machine may have other work."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("most_seconds", "of processor time that a test without the mark slow may take", default="5")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test begins first: at the end, one of two processes would wait for it."""
    items.sort(key=lambda item: "tests/training/recipe/" not in item.nodeid)  # a stable sort


def processor_seconds() -> float:
    """What this process and those that it started and waited for have taken so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Keeps `make check` quick. Processor time, since a test is not slow because the machine has other work."""
    before = processor_seconds()
    yield
    taken = processor_seconds() - before
    slow = SOAK or item.get_closest_marker("slow")
    if taken > float(item.config.getini("most_seconds")) and not slow:
        pytest.fail(f"took {taken:.1f} s of processor time: make it smaller, or mark it slow", pytrace=False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of open CT scans; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SHARED_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set SHARED_DATA. Real scans are the point here, made ones are tested")
    return folder


@pytest.fixture(scope="session")
def nnunet() -> None:
    """nnU-Net is imported, which takes more than a quick test may, or the test is skipped."""
    pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    pytest.importorskip("nnunetv2.preprocessing.preprocessors.default_preprocessor")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result folder of a tiny network."""
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with two exported tiny networks: organ (values 1..4) and tumor (14). See tests/networks."""
    return shutil.copytree(NETWORKS, tmp_path_factory.mktemp("tiny") / "weights")  # tests try to damage it


@pytest.fixture(scope="session")
def named_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with names of organs: liver, right_kidney, lung_upper_lobe_left and aorta."""
    folder = shutil.copytree(NETWORKS, tmp_path_factory.mktemp("named") / "weights")
    rename(folder / "organ", STRUCTURES)
    return folder


@pytest.fixture(scope="session")
def save_scan() -> Callable[..., Path]:
    """Writes voxels (z, y, x) as a NIfTI file whose axes run towards `orientation`."""

    def save(path: Path, voxels: np.ndarray, spacing: tuple[float, ...], orientation: str = "LPS") -> Path:
        from nibabel.orientations import axcodes2ornt

        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for stored, (world, sign) in enumerate(axcodes2ornt(tuple(orientation))):
            affine[int(world), stored] = sign * spacing[2 - stored]
            affine[int(world), 3] = -sign * spacing[2 - stored] * voxels.shape[2 - stored] / 2
        image = nib.Nifti1Image(voxels.transpose(2, 1, 0), affine)
        image.header.set_xyzt_units("mm", "sec")
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
        return path

    return save


@pytest.fixture(scope="session")
def blob() -> np.ndarray:
    """A body of soft tissue with structure in it, in air: (z, y, x) = (26, 60, 72) int16 HU."""
    rng = np.random.default_rng(7)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (26, 60, 72)), indexing="ij")
    hu = np.where((y / 0.8) ** 2 + (x / 0.9) ** 2 < 1, 40.0, -1000.0)
    for _ in range(25):
        centre, radius, value = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.1, 0.3), rng.uniform(-120, 200)
        near = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        hu[near & (hu > -900)] = value
    return np.rint(hu + rng.normal(0, 10, hu.shape)).astype(np.int16)


FSYNC = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int fsync(int descriptor) {
  struct stat status;
  const char *what = getenv("FAIL_FSYNC");
  if (what && !fstat(descriptor, &status) && !strcmp(what, S_ISDIR(status.st_mode) ? "folder" : "file")) {
    errno = atoi(getenv("FAIL_ERRNO"));
    return -1;
  }
  return syscall(SYS_fsync, descriptor);
}
"""


@pytest.fixture(scope="session")
def failing_fsync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for LD_PRELOAD: fsync of what FAIL_FSYNC names ("folder" or "file") gives the errno FAIL_ERRNO."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    source = tmp_path_factory.mktemp("preload") / "fsync.c"
    source.write_text(FSYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", source.with_suffix(".so"), source], check=True)
    return source.with_suffix(".so")
