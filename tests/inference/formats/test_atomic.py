"""A file is whole or not there, also when its writer is killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference.formats.atomic import remove_parts, write_atomically
from tests.conftest import ROOT

WRITER = """
import sys
from pathlib import Path
from inference.formats.atomic import write_atomically
data = b"new!" * (4 << 20)
print(flush=True)
while True:
    write_atomically(Path(sys.argv[1]), data)
"""

PREPARED = """
import sys
from pathlib import Path
from inference.formats.atomic import remove_parts, write_atomically
def once():
    remove_parts([Path(sys.argv[1])])
    print(write_atomically(Path(sys.argv[1]), b"labels"))
"""


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 240)  # as long as a name can be, and its part's name must be no longer
    for data in (b"old", b"new"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == [path.name]


def write_with_fsync_failing(preload: Path, what: str, error: int, path: Path) -> subprocess.CompletedProcess[str]:
    changes = {"LD_PRELOAD": str(preload), "FAIL_FSYNC": what, "FAIL_ERRNO": str(error)}
    command: list[str | Path] = [sys.executable, "-c", PREPARED + "once()", path]
    return subprocess.run(command, cwd=ROOT, env=os.environ | changes, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        *(("folder", one) for one in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EBADF, errno.EIO)),
        *(("file", one) for one in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)),
    ],
)
def test_a_file_system_that_cannot_sync_costs_a_warning(
    what: str, error: int, failing_fsync: Path, tmp_path: Path
) -> None:
    done = write_with_fsync_failing(failing_fsync, what, error, tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert f"power cut: the file system cannot sync them ({os.strerror(error)})" in done.stdout
    assert (tmp_path / "x").read_bytes() == b"labels" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_file_whose_data_did_not_reach_the_disk_is_not_put_in_place(
    error: int, failing_fsync: Path, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"old")
    done = write_with_fsync_failing(failing_fsync, "file", error, tmp_path / "x")
    assert done.returncode == 1 and os.strerror(error) in done.stderr
    assert (tmp_path / "x").read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


def test_a_folder_that_may_be_written_but_not_read(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    inner = tmp_path / "box"
    inner.mkdir()
    os.chown(inner, 12345, 12345)
    inner.chmod(0o300)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's own folders are closed to others
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o111)
    as_user = "import os; os.setgid(12345); os.setuid(12345)\n"
    command: list[str | Path] = [sys.executable, "-c", PREPARED + as_user + "once()", inner / "x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Permission denied" in done.stdout and (inner / "x").read_bytes() == b"labels"


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(b"old")
    for moment in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(0.003 * moment)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert path.read_bytes() in (b"old", b"new!" * (4 << 20))
    remove_parts([path])
    assert os.listdir(tmp_path) == [path.name]


def test_only_parts_of_the_named_files_are_removed(tmp_path: Path) -> None:
    for name in (".a.nii.gz.12.part", ".b.nii.gz.12.part", ".a.nii.gz.part", "a.nii.gz.12.part"):
        (tmp_path / name).touch()
    remove_parts([tmp_path / "a.nii.gz"])
    assert sorted(os.listdir(tmp_path)) == [".a.nii.gz.part", ".b.nii.gz.12.part", "a.nii.gz.12.part"]


def test_a_link_planted_where_the_part_will_be_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / f".x.{os.getpid()}0000000000.part").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "x", b"data")
    assert not (tmp_path / "victim").exists()
