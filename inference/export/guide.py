"""A guide for a network: the shipped network at a coarse spacing, which finds in a second where it has to look."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..card import Card
from ..card_file import FILE_NAME, GUIDE_FOLDER, read_card
from ..errors import WeightsError
from ..formats.atomic import writing
from ..labels import ORGANS, is_tumor, known
from ..options import CROP, WEIGHTS
from .plain import read_json
from .write import replace_card, save_json

# mm. At 3 the shipped network finds all organs but adrenals in nearly every scan, for a quarter of the voxels of its
# own spacing; at 4 it misses as many as it finds.
SPACING = 3.0
SHIPPED = WEIGHTS / "unified"


def near(card: Card, named: Sequence[str] | None = None) -> tuple[int, ...] | None:
    """The values of ORGANS near which all labels of a network lie: those in whose names an organ stands, tumours beside
    them, or those that are named. None where a label is of something else, or the network takes no CT.

    Raises WeightsError for a name that is none of an organ, and where organs are named for what is no CT.
    """
    if not card.channels[0].is_ct:
        if named is not None:
            raise WeightsError(f"network {card.name} takes no CT, in which alone the guide knows organs")
        return None
    values: set[int] = set()
    for name in card.names.values() if named is None else named:
        organs = _organs(name)
        if not organs and named is not None:
            raise WeightsError(f"{name!r} is not an organ that the guide knows: {', '.join(o.key for o in ORGANS)}")
        if not organs and not is_tumor(name):
            return None
        values |= organs
    return tuple(sorted(values)) or None


def _organs(name: str) -> set[int]:
    """Values of the organs of a name: "Right Kidney" one, "kidney tumor" two."""
    if (one := known(name)) in ORGANS and one:
        return {one.value}
    text = "_".join(name.lower().replace("-", " ").split())
    words = {organ.value: organ.key.removeprefix("right_").removeprefix("left_") for organ in ORGANS}
    return {value for value, word in words.items() if word.removesuffix("_gland") in text}


def put(values: Sequence[int], network: Path) -> dict[str, Any]:
    """Write a guide into the folder of a network. Returns what the network's card says of it.

    values  as of `near`
    Raises WeightsError where the shipped network is missing or damaged, OutputError where nothing can be written.
    """
    shipped, out = read_card(SHIPPED), network / GUIDE_FOLDER
    files = {name: shipped.file(name) for name in shipped.files}
    card = read_json(SHIPPED / FILE_NAME) | {"spacing": [SPACING] * 3}
    with writing(str(out)):
        out.mkdir(exist_ok=True)
        for name, file in files.items():
            shutil.copyfile(file, out / name)
        save_json(card, out / FILE_NAME)
    return {"values": list(values)}


def look_near(folder: Path, named: Sequence[str]) -> None:
    """Have an exported network, which sees CT, look near organs alone: a guide in it, and the way CROP on its card.

    named  as of `near`
    Raises as `near` and `put`.
    """
    values = near(read_card(folder), named) or ()
    replace_card(read_json(folder / FILE_NAME) | {"way": CROP.name, "guide": put(values, folder)}, folder)
