"""The open data of this project, opened for training; paths as in the data folder's README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from training.anatomy import Anatomy, read_named_structures, read_spl_atlas, read_structures
from training.patch import Patch
from training.scans import LabelledScan
from training.synthesis import Renderer
from training.warp import Shape

# How often each label map is rendered from, relative to the others.
LABEL_MAPS = {"s0327": 0.35, "s0328": 0.35, "ts_example": 0.2, "spl": 0.1}
# How often each labelled scan is taken, relative to the others.
LABELLED = {"ts_example": 0.5, "ts_slab": 0.3, "amos_0001": 0.2}
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


class Source(Protocol):
    """Anything that gives training patches."""

    def render(self, rng: np.random.Generator, shape: Shape, spacing: np.ndarray) -> Patch: ...


def _anatomy(data: Path, name: str) -> Anatomy:
    if name == "spl":
        folder = data / "label_maps"
        return read_spl_atlas(folder / "SPL_abdominal_atlas_2015_seg.nrrd", folder / "SPL_AbdominalAtlasColors.ctbl")
    if name == "ts_example":
        return read_structures(data / "labelled" / "ts_example_104classes.nii.gz", dict(enumerate(_V1, 1)))
    return read_named_structures(data / "label_maps" / f"TotalSegmentator_{name}_all_structures.nii.gz")


def open_renderers(data: Path, without: Sequence[str] = ()) -> dict[str, Renderer]:
    """A renderer by the name of each label map that names all structures, those in `without` left out."""
    return {name: Renderer(_anatomy(data, name)) for name in LABEL_MAPS if name not in without}


def open_labelled(data: Path, without: Sequence[str] = ()) -> dict[str, LabelledScan]:
    """The labelled scans by name, those in `without` left out."""
    folder = data / "labelled"
    return {
        name: LabelledScan(name, folder / f"{name}_0000.nii.gz", folder / f"{name}.nii.gz")
        for name in LABELLED
        if name not in without
    }


def open_pseudo(data: Path, labels: Path) -> dict[str, LabelledScan]:
    """The unlabelled scans that have pseudo-labels X.nii.gz in the folder `labels`; a tumour is in them or is none.

    Were it left open, nothing would stop a network from calling hearts and bowels tumours.
    """
    folder = data / "unlabelled"
    names = sorted(path.name.removesuffix(".nii.gz") for path in labels.glob("*.nii.gz"))
    return {name: LabelledScan(name, folder / f"{name}_0000.nii.gz", labels / f"{name}.nii.gz") for name in names}


def open_sources(
    data: Path, synthetic: float, pseudo: float, labels: Path | None, without: Sequence[str]
) -> list[tuple[Source, float]]:
    """(source, share of the patches). The shares of synthetic and of pseudo-labelled patches are given and the
    labelled scans have the rest; where a kind has no source, the others take its share."""
    kinds: list[tuple[float, Mapping[str, float], Mapping[str, Source]]] = [
        (synthetic, LABEL_MAPS, open_renderers(data, without)),
        (1 - synthetic - pseudo, LABELLED, open_labelled(data, without)),
        (pseudo, {}, open_pseudo(data, labels) if labels else {}),
    ]
    sources: list[tuple[Source, float]] = []
    for share, weights, opened in kinds:
        whole = sum(weights.get(name, 1.0) for name in opened)
        sources += [(source, share * weights.get(name, 1.0) / whole) for name, source in opened.items()]
    total = sum(share for _, share in sources)
    return [(source, share / total) for source, share in sources if share]
