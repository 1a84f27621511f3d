"""A result folder of nnU-Net out of a ZIP archive of a stranger.

No name in an archive becomes a path: the three files that an export needs are found by their names and written to
places that are fixed here.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ..errors import WeightsError
from .plain import LARGEST_JSON, shown
from .write import DATASET, FINAL, PLANS

CHECKPOINT = f"fold_0/{FINAL}"
LARGEST_CHECKPOINT = 2 << 30  # bytes; those of nnU-Net's planner have 0.1 to 0.5 GB
MOST_FILES = 10_000  # in an archive
CHUNK = 1 << 20


def unpack(archive: Path, folder: Path) -> None:
    """Write plans.json, dataset.json and fold_0/checkpoint_final.pth of the result folder in an archive to `folder`.

    Raises WeightsError where the archive is damaged, holds none or several, has members that are links or lie outside
    of it, or would unpack to more than a checkpoint has. OSError where nothing can be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > MOST_FILES:
                raise ValueError(f"it holds {len(members):,} files, more than {MOST_FILES:,}")
            found = _checked(members)
            inside = _result_folder(found)
            for place in (PLANS, DATASET, CHECKPOINT):
                _take(opened, found[inside / place], folder / place)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{archive} cannot be unpacked: {str(error) or type(error).__name__}") from error


def _checked(members: list[zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive, but for what macOS adds. Raises ValueError where one is not a plain file within."""
    found = {}
    for member in members:
        name = member.filename
        path = PurePosixPath(name)
        # `orig_filename`: what follows a NUL is cut off the name, as zipfile reads it
        if path.is_absolute() or ".." in path.parts or set(member.orig_filename) & set("\\:\0"):
            raise ValueError(f"{shown(member.orig_filename)} would lie outside of it")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{shown(name)} is a link or a special file")
        if member.is_dir() or "__MACOSX" in path.parts:
            continue
        if path in found:
            raise ValueError(f"{shown(name)} is in it twice")
        found[path] = member
    return found


def _result_folder(found: Collection[PurePosixPath]) -> PurePosixPath:
    """The folder that has plans.json and the checkpoint. Raises ValueError where there is none, or another one too."""
    folders = sorted(path.parent.parent for path in found if path.match(CHECKPOINT))
    if not folders:
        raise ValueError(f"it holds no {CHECKPOINT}")
    if len(folders) > 1:
        raise ValueError(f"it holds several networks: {', '.join(shown(str(one)) for one in folders[:4])}")
    for needed in (PLANS, DATASET):
        if folders[0] / needed not in found:
            raise ValueError(f"{needed} is missing beside its {CHECKPOINT.split('/')[0]}")
    return folders[0]


def _take(opened: zipfile.ZipFile, member: zipfile.ZipInfo, to: Path) -> None:
    """Write one member. zipfile gives no more bytes than a member declares, and then compares their CRC."""
    most = LARGEST_CHECKPOINT if to.suffix == ".pth" else LARGEST_JSON
    if member.file_size > most:
        raise ValueError(f"{shown(member.filename)} would have {member.file_size:,} bytes, more than {most:,}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others take unbounded memory
        raise ValueError(f"{shown(member.filename)} is compressed in a way that is not read")
    to.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(member) as source, to.open("xb") as target:
        while chunk := source.read(CHUNK):
            target.write(chunk)
