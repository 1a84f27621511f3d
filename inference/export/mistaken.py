"""What somebody gave that is not a result folder of nnU-Net, told by what lies there, and what to do about it."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from ..card_file import FILE_NAME as CARD
from .plain import shown
from .write import FINAL, PLANS


def what_it_is(path: Path) -> str:
    """A sentence on what somebody gave that is not a result folder, and what to do about it."""
    if not path.exists():
        return f"{path} does not exist"
    if is_part_of_v1(path):
        return _what_v1_is(path)
    return _what_a_folder_is(path) if path.is_dir() else _what_a_file_is(path)


def is_part_of_v1(path: Path) -> bool:
    """Whether this is a file of nnU-Net v1's, or a folder that holds one, or one in each fold."""
    patterns = ("plans.pkl", "*.model", "*.model.pkl")
    if not path.is_dir():
        return any(path.match(pattern) for pattern in patterns)
    places = ("", "fold_*/", "all/")
    return any(found for pattern in patterns for place in places for found in path.glob(place + pattern))


def _what_v1_is(path: Path) -> str:
    """Of a file of nnU-Net v1's, or a folder with some, that is not the folder of a model."""
    parent = path.resolve().parent
    if not path.is_dir():
        model = parent if path.name == "plans.pkl" else parent.parent
        return f"{path} is one file of a model of nnU-Net v1: give {model}"
    if any(path.glob("*.model")):
        fold = path.resolve().name.removeprefix("fold_")
        return f"{path} is one fold of a model of nnU-Net v1: give {parent} with --fold {fold}"
    return f"{path} is a model of nnU-Net v1 without checkpoints: fold_*/model_final_checkpoint.model was looked for"


def _what_a_folder_is(folder: Path) -> str:
    def models(pattern: str) -> list[str]:
        found = (path.parent for path in folder.glob(f"{pattern}/{PLANS}"))
        return sorted(str(place) for place in found if not (place / CARD).exists())

    parent = folder.resolve().parent
    if any(folder.glob("checkpoint_*.pth")):
        if (parent / PLANS).exists():
            return f"{folder} is one fold: give {parent} with --fold {folder.resolve().name.removeprefix('fold_')}"
        return f"{folder} is one fold of a model, without the plans.json and dataset.json that belong in {parent}"
    if inside := models("*") or models("*/*"):
        return f"{folder} is not a model itself: give {' or '.join(inside[:4])}"
    if v1 := sorted(found.parent for pattern in ("*", "*/*", "*/*/*") for found in folder.glob(f"{pattern}/plans.pkl")):
        return f"{folder} is not a model itself: give {' or '.join(map(str, v1[:4]))}"
    if (folder / CARD).exists():
        return f"{folder} is a network that was exported already: it holds {CARD}"
    if any(folder.glob("nnUNet*lans*.json")):
        return f"{folder} is preprocessed data of nnU-Net: give a folder that training left in nnUNet_results"
    if (folder / "imagesTr").exists():
        return f"{folder} is training data of nnU-Net: give a folder that training left in nnUNet_results"
    if archives := sorted(file for file in folder.iterdir() if names_in_archive(file) is not None):
        return f"{folder} holds no plans.json, but the archive {archives[0].name}: unpack that first"
    return f"{folder} is not a result folder of nnU-Net: plans.json, dataset.json and fold_*/{FINAL} were looked for"


def _what_a_file_is(file: Path) -> str:
    names = names_in_archive(file)
    if names is not None:
        if any(name.endswith("plans.pkl") for name in names):
            return f"{file} is an archive with a model of nnU-Net v1: unpack it and give the folder of plans.pkl"
        inside = sorted(str(Path(name).parent) for name in names if name.endswith(PLANS))
        where = f"its folder {shown(inside[0])}" if inside else "the folder in it that holds plans.json"
        return f"{file} is an archive: unpack it and give {where}"
    if file.suffix == ".onnx":
        return f"{file} is an ONNX graph: give the nnU-Net folder that it was made from"
    if file.suffix == ".json":
        return f"{file} is one file of a model: give the folder that holds it"
    if file.suffix == ".pth":
        return what_a_checkpoint_is(file)
    return f"{file} is a file, and not a result folder of nnU-Net"


def what_a_checkpoint_is(file: Path) -> str:
    fold = file.resolve().parent
    if (fold.parent / PLANS).exists():
        number = fold.name.removeprefix("fold_")
        return f"{file} is one checkpoint of a model: give {fold.parent} --fold {number} --checkpoint {file.name}"
    return f"{file} is a checkpoint of nnU-Net: give the folder of its model, with plans.json and fold_*/{file.name}"


def names_in_archive(file: Path) -> list[str] | None:
    """The names in a zip file, such as nnU-Net's own exports; none of a tar file; None for PyTorch's files and others.

    PyTorch's files are zip files as well.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as opened:
                names = opened.namelist()
            return None if any(name.endswith(("/data.pkl", "/constants.pkl")) for name in names) else names
        return [] if file.is_file() and tarfile.is_tarfile(file) else None
    except (OSError, zipfile.BadZipFile):
        return None
