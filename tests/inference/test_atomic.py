"""A file is whole or not there, also when its writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference.atomic import remove_parts, write_atomically

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from pathlib import Path
from inference.atomic import write_atomically
data = b"new!" * (4 << 20)
print(flush=True)
while True:
    write_atomically(Path(sys.argv[1]), data)
"""


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 240)  # as long as a name can be, and its part's name must be no longer
    for data in (b"old", b"new"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == [path.name]


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


def test_a_link_planted_where_the_part_will_be_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / f".x.{os.getpid()}.part").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "x", b"data")
    assert not (tmp_path / "victim").exists()
