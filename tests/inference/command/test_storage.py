"""Storage as clusters have it: file systems that refuse much, permissions that others set, clocks that differ, and
folders with very many names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.formats.cases import find_cases
from tests.conftest import ROOT

# What a file system between NFS, Lustre and a FUSE mount may refuse: hard links, renaming into another folder, files
# without a name, and the sync of a folder.
REFUSING = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static size_t folder(const char *path) { const char *end = strrchr(path, '/'); return end ? end - path : 0; }
int link(const char *from, const char *to) { errno = EPERM; return -1; }
int linkat(int a, const char *from, int b, const char *to, int flags) { errno = EPERM; return -1; }
int rename(const char *from, const char *to) {
  if (folder(from) != folder(to) || strncmp(from, to, folder(from))) { errno = EXDEV; return -1; }
  return syscall(SYS_rename, from, to);
}
int renameat(int a, const char *from, int b, const char *to) { errno = ENOSYS; return -1; }
int fsync(int descriptor) {
  struct stat status;
  if (!fstat(descriptor, &status) && S_ISDIR(status.st_mode)) { errno = EINVAL; return -1; }
  return syscall(SYS_fsync, descriptor);
}
int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  if ((flags & O_TMPFILE) == O_TMPFILE) { errno = EOPNOTSUPP; return -1; }
  return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int open(const char *path, int flags, ...) __attribute__((alias("open64")));
"""
TRIES = """
import os, sys
folder = sys.argv[1]
os.mkdir(folder + "/sub")
open(folder + "/a", "w").close()
for refused in (
    lambda: os.link(folder + "/a", folder + "/b"),
    lambda: os.rename(folder + "/a", folder + "/sub/a"),
    lambda: os.open(folder, os.O_TMPFILE | os.O_WRONLY),
    lambda: os.fsync(os.open(folder, os.O_RDONLY)),
):
    try:
        refused()
    except OSError:
        continue
    sys.exit("not refused")
os.rename(folder + "/a", folder + "/b")
"""
ENGINE = ("--device", "cpu", "--engine", "onnxruntime", "--threads", "1")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process whose file systems refuse much."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "refusing.c").write_text(REFUSING)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", folder / "refusing.so", folder / "refusing.c"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(folder / "refusing.so")}
    subprocess.run([sys.executable, "-c", TRIES, folder], env=environment, check=True)  # that it refuses
    return environment


def run(
    inputs: Path, outputs: Path, weights: Path, *flags: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inference", str(inputs), str(outputs), "--weights", str(weights)]
    return subprocess.run([*command, *ENGINE, *flags], cwd=ROOT, capture_output=True, text=True, check=False, env=env)


@pytest.mark.slow
def test_every_output_is_written_where_much_is_refused(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path, refusing: dict[str, str]
) -> None:
    for name in "ab":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    flags = ("--save-probabilities", "--format", "nii.gz,seg.nrrd", "--json")
    there, out = tmp_path / "there", tmp_path / "out"
    assert run(tmp_path / "in", there, tiny_weights, *flags, str(there / "run.json")).returncode == 0
    out.mkdir()
    (out / "a.nii.gz").write_bytes(b"somebody's")  # is renamed
    for more in ((), ("--resume",), ()):  # the last replaces what the first wrote
        done = run(tmp_path / "in", out, tiny_weights, *flags, str(out / "run.json"), *more, env=refusing)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("cannot sync") == 1
    assert {path.name for path in out.iterdir()} == {path.name for path in there.iterdir()} | {"a.nii.gz.before"}
    for path in [
        *there.glob("*.nii.gz"),
        *there.glob("*.seg.nrrd"),
        *there.glob("*/*.nii.gz"),
        there / "measurements.csv",
    ]:
        assert (out / path.relative_to(there)).read_bytes() == path.read_bytes(), path


def test_clocks_that_differ_change_nothing(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    """Scans of the future, label maps of the past: what fits is told by content."""
    scan = save_scan(tmp_path / "in" / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    out = tmp_path / "out"
    assert run(tmp_path / "in", out, tiny_weights).returncode == 0
    os.utime(scan, (4e9, 4e9))
    for path in out.iterdir():
        os.utime(path, (1, 1))
    done = run(tmp_path / "in", out, tiny_weights, "--resume")
    assert (done.returncode, "a: kept" in done.stdout) == (0, True), done.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="only root can become somebody else, by setpriv",
)
def test_inputs_with_odd_permissions(blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path) -> None:
    """Root may read everything, but not on storage that takes it for nobody; so the run is one of another user."""
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    folder.chmod(0o755)
    try:
        shutil.copytree(tiny_weights, folder / "weights")
        for name in ("open", "closed"):
            save_scan(folder / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
        (folder / "in" / "sub").mkdir()
        (folder / "out").mkdir()
        os.chown(folder / "out", 65534, 65534)
        for path, mode in (
            ("in/closed_0000.nii.gz", 0o000),
            ("in/open_0000.nii.gz", 0o444),
            ("in/sub", 0o700),
            ("in", 0o555),
        ):
            (folder / path).chmod(mode)
        for one in (folder / "weights").rglob("*"):
            one.chmod(0o755 if one.is_dir() else 0o444)
        paths = [str(folder / name) for name in ("in", "out", "weights")]
        command = [sys.executable, "-m", "inference", *paths[:2], "--weights", paths[2]]
        if subprocess.run([*nobody, sys.executable, "-c", "import numpy"], cwd="/", check=False).returncode:
            pytest.skip("this Python is not readable by others")
        done = subprocess.run([*nobody, *command, *ENGINE], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 8, done.stderr
        assert "closed_0000.nii.gz cannot be read: Permission denied" in done.stderr
        assert "sub is left out: a folder that cannot be opened" in done.stderr
        assert (folder / "out" / "open.nii.gz").exists() and not (folder / "out" / "closed.nii.gz").exists()
    finally:
        shutil.rmtree(folder)


def test_many_names_are_listed_without_a_question_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On network storage each costs up to a millisecond: 50,000 names would take minutes, in every task of an array."""
    for number in range(500):
        (tmp_path / f"case_{number:03d}x_0000.nii.gz").touch()
        (tmp_path / f"amos_{number:04d}.nii.gz").touch()
    asked = 0

    def counting(ask: Callable[..., object]) -> Callable[..., object]:
        def count(*arguments: object, **more: object) -> object:
            nonlocal asked
            asked += 1
            return ask(*arguments, **more)

        return count

    for name in ("stat", "lstat", "open"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    assert len(find_cases(tmp_path, tmp_path / "out").cases) == 1000
    assert asked < 20
