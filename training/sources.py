"""The open data of this project, opened for training; paths as in the data folder's README."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from training.anatomy import read_named_structures
from training.patch import Patch
from training.scans import LabelledScan
from training.synthesis import Renderer
from training.warp import Shape

STRUCTURE_MAPS = ["TotalSegmentator_s0327_all_structures", "TotalSegmentator_s0328_all_structures"]
# How often each labelled scan is taken, relative to the others.
LABELLED = {"ts_example": 0.5, "ts_slab": 0.3, "amos_0001": 0.2}


class Source(Protocol):
    """Anything that gives training patches."""

    def render(self, rng: np.random.Generator, shape: Shape) -> Patch: ...


def open_renderers(data: Path) -> list[Renderer]:
    """A renderer for each label map that names all structures."""
    return [Renderer(read_named_structures(data / "label_maps" / f"{name}.nii.gz")) for name in STRUCTURE_MAPS]


def open_labelled(data: Path, without: list[str]) -> dict[str, LabelledScan]:
    """The labelled scans by name, those in `without` left out."""
    folder = data / "labelled"
    return {
        name: LabelledScan(name, folder / f"{name}_0000.nii.gz", folder / f"{name}.nii.gz", tumours_known=True)
        for name in LABELLED
        if name not in without
    }


def open_sources(data: Path, synthetic_share: float, without: list[str]) -> list[tuple[Source, float]]:
    """(source, share of the patches); the shares sum to 1."""
    renderers = open_renderers(data)
    labelled = open_labelled(data, without)
    weight = sum(LABELLED[name] for name in labelled)
    sources: list[tuple[Source, float]] = [(renderer, synthetic_share / len(renderers)) for renderer in renderers]
    for name, scan in labelled.items():
        sources.append((scan, (1 - synthetic_share) * LABELLED[name] / weight))
    total = sum(share for _, share in sources)
    return [(source, share / total) for source, share in sources]
