"""The label maps of this project's open data, opened for rendering; paths as in the data folder's README."""

from __future__ import annotations

from pathlib import Path

from training.synthesis.anatomy import Anatomy, read_named_structures, read_structures
from training.synthesis.render import Renderer

LABEL_MAPS = ("s0327", "s0328", "ts_example")  # those that name all structures
# TotalSegmentator's classes, version 1, in the order of their ids from 1.
_SIDES = ("left", "right")
_V1 = [
    *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "aorta", "inferior_vena_cava"),
    *("portal_vein_and_splenic_vein", "pancreas", "adrenal_gland_right", "adrenal_gland_left"),
    *["lung"] * 5,
    *["vertebra"] * 24,
    *("esophagus", "trachea"),
    *["heart"] * 6,
    "brain",
    *["iliac_artery"] * 2,
    *["iliac_vena"] * 2,
    *("small_bowel", "duodenum", "colon"),
    *["rib"] * 24,
    *(f"{name}_{side}" for name in ("humerus", "scapula", "clavicula", "femur", "hip") for side in _SIDES),
    *("sacrum", "face"),
    *["gluteus"] * 6,
    *["autochthon"] * 2,
    *["iliopsoas"] * 2,
    "urinary_bladder",
]


def open_renderer(data: Path, name: str) -> Renderer:
    """Of one of LABEL_MAPS. Raises OSError or RuntimeError if it is missing."""
    return Renderer(_anatomy(data, name))


def _anatomy(data: Path, name: str) -> Anatomy:
    if name == "ts_example":
        return read_structures(data / "labelled" / "ts_example_104classes.nii.gz", dict(enumerate(_V1, 1)))
    return read_named_structures(data / "label_maps" / f"TotalSegmentator_{name}_all_structures.nii.gz")
