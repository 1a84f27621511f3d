"""The folder of a network, written so that its card never vouches for files that are not there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from ..card import FORMS, HEAD_FILE, OWN_WEIGHTS, WEIGHTS_FILE
from ..card_file import FILE_NAME, GUIDE_FOLDER
from ..errors import OutputError

PLANS, DATASET, FINAL = "plans.json", "dataset.json", "checkpoint_final.pth"  # of a result folder, and of a fold
# What an exporter or nnU-Net's predictor reads of a dataset.json. It may hold more, such as the names of patients.
READ_OF_DATASET = (
    "channel_names", "modality", "labels", "regions_class_order", "numTraining", "file_ending",
    "overwrite_image_reader_writer", "orientation", "one_piece", "hosts", "way", "step",
)  # fmt: skip


def refuse_nnunets(out: Path) -> None:
    """Raises OutputError where `out` holds what nnU-Net trained or was trained with, under the names of files that are
    written there; those of an earlier export have a card beside them."""
    planned = any((out / name).exists() for name in (PLANS, DATASET)) and not (out / FILE_NAME).exists()
    if planned or any(out.glob("fold_*")):
        raise OutputError(f"{out} holds files of nnU-Net, which would be written over: choose another folder")


@contextmanager
def workshop(out: Path) -> Iterator[Path]:
    """An empty folder on the file system of `out`, gone at the end. Raises OutputError if nothing can be written."""
    made = out.parent / f".{out.name}.{token_hex(4)}"  # named before it is made: a signal may come in between
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made.mkdir(mode=0o700)
        yield made
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def save_card(card: dict[str, Any], folder: Path, forms: Mapping[str, Sequence[str]]) -> None:
    """Write card.json to a workshop, with the digests of the model files that lie in it.

    forms  precision -> those files of it, the graph first, which are added to what the card has
    """
    files = {name: sha256(folder / name) for names in forms.values() for name in names}
    card["files"] = card.get("files", {}) | files
    card["forms"] = card.get("forms", {}) | {form: list(names) for form, names in forms.items()}
    save_json(card, folder / FILE_NAME)


def save_sources(plans: Mapping[str, Any], dataset: Mapping[str, Any], folder: Path) -> None:
    """Keep what nnU-Net needs to run the network itself: see back."""
    folder.mkdir(parents=True, exist_ok=True)
    save_json(plans, folder / PLANS)
    save_json({name: dataset[name] for name in READ_OF_DATASET if name in dataset}, folder / DATASET)


def move(made: Path, out: Path) -> None:
    """Put all files of a workshop into `out`, the card last: it vouches for the others."""
    out.mkdir(exist_ok=True)
    for path in sorted(made.iterdir(), key=lambda path: path.name == FILE_NAME):
        path.replace(out / path.name)


def replace_card(fields: dict[str, Any], folder: Path) -> None:
    """Write the card of a network anew, whole or not at all. Raises OutputError as `workshop`."""
    with workshop(folder) as made:
        save_json(fields, made / FILE_NAME)
        move(made, folder)


def remove_others(out: Path, files: Iterable[str]) -> None:
    """Remove model files of the network that was in `out` before, and its guide."""
    others = {WEIGHTS_FILE, HEAD_FILE, *OWN_WEIGHTS.values(), *(name for form in FORMS.values() for name in form)}
    for name in others - set(files):
        (out / name).unlink(missing_ok=True)
    if (out / GUIDE_FOLDER / FILE_NAME).exists():
        shutil.rmtree(out / GUIDE_FOLDER, ignore_errors=True)


def save_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
