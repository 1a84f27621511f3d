"""What nnU-Net's own commands would do with the labels of a model afterwards, for the user of an export."""

from __future__ import annotations

from pathlib import Path

from ..errors import WeightsError
from . import v1
from .plain import read_json

OF_V2 = "postprocessing.pkl"  # a pickle of functions, which is never read; what they are stands in a .json beside it


def note(folder: Path) -> str | None:
    """A sentence on the postprocessing of a result folder that is not part of an export; None if there is none."""
    if v1.is_v1(folder):
        return None  # it is: v1_pieces
    places = sorted(folder.glob(f"crossval_results*/{OF_V2}"))
    if not (found := [file for file in (folder / OF_V2, *places) if file.is_file() and _does_something(file)]):
        return None
    return (
        f"{found[0].relative_to(folder)} is not applied, as nnUNetv2_predict does not apply it: nnU-Net's own second "
        "step, nnUNetv2_apply_postprocessing, takes these label maps as well."
    )


def _does_something(file: Path) -> bool:
    """Whether it lists functions: nnU-Net writes the file too where nothing that it tried helped."""
    try:
        return read_json(file.with_suffix(".json")).get("postprocessing_fns") != []
    except WeightsError:
        return True
