"""Archives of strangers: three files come out of one, to fixed places, or nothing and a sentence."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inference.errors import WeightsError
from inference.export import unpack as module
from inference.export.unpack import unpack

FOLDER = "Dataset291/nnUNetTrainer__nnUNetPlans__3d_fullres"
PLAN = {f"{FOLDER}/plans.json": b"plan", f"{FOLDER}/dataset.json": b"labels"}
USUAL = PLAN | {f"{FOLDER}/fold_0/checkpoint_final.pth": b"weights" * 1000}


def archive(file: Path, members: Mapping[Any, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", kind) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file


def refused(file: Path, tmp_path: Path, message: str) -> None:
    """Unpacking gives this error, and no file beside or below the folder."""
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(WeightsError, match=message) as caught:
        unpack(file, out)
    assert str(file) in str(caught.value)
    assert {path for path in set(tmp_path.rglob("*")) - before if path.is_file() and out not in path.parents} == set()


def test_what_an_export_needs_comes_out_and_nothing_else(tmp_path: Path) -> None:
    more = {
        "Dataset291/.DS_Store": b"",
        f"{FOLDER}/dataset_fingerprint.json": b"patients",
        f"{FOLDER}/fold_0/checkpoint_best.pth": b"",
        f"{FOLDER}/fold_0/._checkpoint_final.pth": b"",
        f"__MACOSX/{FOLDER}/plans.json": b"",
        f"__MACOSX/{FOLDER}/fold_0/checkpoint_final.pth": b"",
        f"{FOLDER}/": b"",
    }
    unpack(archive(tmp_path / "a.zip", {**USUAL, **more}), tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {name.removeprefix(f"{FOLDER}/"): content for name, content in USUAL.items()}


def test_a_result_folder_may_lie_at_the_top(tmp_path: Path) -> None:
    top = {f"./{name.removeprefix(FOLDER)[1:]}": content for name, content in USUAL.items()}
    unpack(archive(tmp_path / "a.zip", top), tmp_path / "out")
    assert (tmp_path / "out" / "plans.json").read_bytes() == b"plan"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", f"{FOLDER}/../../../evil", "C:\\evil", "a\\..\\..\\evil"])
def test_members_outside_of_the_archive(name: str, tmp_path: Path) -> None:
    refused(archive(tmp_path / "a.zip", {**USUAL, name: b"evil"}), tmp_path, "would lie outside of it")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
@pytest.mark.parametrize("name", [f"{FOLDER}/plans.json", "other"])
def test_links_and_special_files(kind: int, name: str, tmp_path: Path) -> None:
    link = zipfile.ZipInfo(name)
    link.external_attr = (kind | 0o777) << 16
    members = {one: content for one, content in USUAL.items() if one != name}
    refused(archive(tmp_path / "a.zip", {**members, link: b"/etc/passwd"}), tmp_path, "a link or a special file")


def test_archives_that_hold_no_network_or_several(tmp_path: Path) -> None:
    for index, (members, message) in enumerate(
        (
            (PLAN, "it holds no fold_0/checkpoint_final.pth"),
            ({f"{FOLDER}/other_fold_0/checkpoint_final.pth": b""}, "it holds no fold_0/checkpoint_final.pth"),
            ({**USUAL, "b/fold_0/checkpoint_final.pth": b""}, "it holds several networks"),
            ({name: content for name, content in USUAL.items() if "plans" not in name}, "plans.json is missing"),
            ({name: content for name, content in USUAL.items() if "dataset.json" not in name}, "dataset.json is miss"),
        )
    ):
        refused(archive(tmp_path / f"{index}.zip", members), tmp_path / str(index), message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tmp_path / "a.zip", USUAL), "a") as opened:
        opened.writestr(f"{FOLDER}/plans.json", b"another plan")
    refused(tmp_path / "a.zip", tmp_path, "is in it twice")


def declared(file: Path, size: int) -> Path:
    """The archive whose directory says that its checkpoint, the last member, has so many bytes."""
    content = bytearray(file.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 24, size)
    file.write_bytes(content)
    return file


def test_a_bomb_that_says_so(tmp_path: Path) -> None:
    file = declared(archive(tmp_path / "a.zip", USUAL), 3 << 30)
    refused(file, tmp_path, "would have 3,221,225,472 bytes, more than 2,147,483,648")
    assert not list((tmp_path / "deep").rglob("*.pth"))


def test_a_bomb_that_does_not(tmp_path: Path) -> None:
    """A member gives no more bytes than it declares, and its CRC is wrong then."""
    bomb = PLAN | {f"{FOLDER}/fold_0/checkpoint_final.pth": bytes(50_000_000)}
    file = declared(archive(tmp_path / "a.zip", bomb), 1000)
    refused(file, tmp_path, "Bad CRC-32")
    assert sum(path.stat().st_size for path in (tmp_path / "deep").rglob("*.pth")) <= 1000


def test_a_bomb_of_json_or_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_JSON", 3)
    refused(archive(tmp_path / "a.zip", USUAL), tmp_path / "a", "would have 4 bytes, more than 3")
    monkeypatch.setattr(module, "MOST_FILES", 2)
    refused(archive(tmp_path / "a.zip", USUAL), tmp_path / "b", "it holds 3 files, more than 2")


def test_ways_of_compressing_that_take_any_memory(tmp_path: Path) -> None:
    refused(archive(tmp_path / "a.zip", USUAL, zipfile.ZIP_BZIP2), tmp_path, "compressed in a way that is not read")


def test_damaged_archives(tmp_path: Path) -> None:
    content = archive(tmp_path / "a.zip", USUAL).read_bytes()
    for index, damaged in enumerate((b"", b"<html>", content[:-100], content[:500] + b"\xff" * 40 + content[540:])):
        (tmp_path / f"{index}.zip").write_bytes(damaged)
        refused(tmp_path / f"{index}.zip", tmp_path / str(index), "cannot be unpacked: ")
