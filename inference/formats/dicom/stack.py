"""Slices as a volume: in their order, evenly apart, of one phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ScanError
from ...scan import FEWEST, SPACING, Grid
from ..geometry import lps_grid
from .slices import Slice, listed, tag

# What slices of one series have in common: as texts, and as numbers that may be rounded in another way.
SAME_TEXTS = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")
SAME_NUMBERS = {"PixelSpacing": 2, "ImageOrientationPatient": 6}
# What tells two slices at one place apart, where a series holds several phases or reconstructions.
PHASES = ("AcquisitionNumber", "TemporalPositionIdentifier", "ConvolutionKernel", "AcquisitionTime", "ImageType")
TURNS = PHASES[:3]  # these do not come back along the slices of one phase
ROUNDED = 1e-3  # share of a length, or cosine
UNEVEN = 0.1  # share of the distance of slices by which one may lie elsewhere
TILT = 0.85  # least cosine between the stack and its slices' normal: gantries tilt by 30 degrees at most


def stack(slices: Sequence[Slice]) -> tuple[list[Slice], Grid, list[str]]:
    """The slices in their order along the normal, their grid, and what is odd about it. Raises ScanError."""
    for one in slices:
        _check_same(slices[0], one)
    if len(slices) < FEWEST:
        raise ScanError(f"holds {len(slices)} of the {FEWEST} slices that a volume needs at least")
    row, column = slices[0].numbers("ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=ROUNDED):
        raise slices[0].refused(f"has directions that are not at right angles in {tag('ImageOrientationPatient')}")
    normal = np.cross(row, column)
    places = np.array([one.numbers("ImagePositionPatient", 3) for one in slices])
    order = np.argsort(places @ normal, kind="stable")
    slices, places = [slices[at] for at in order], places[order]
    _check_even(slices, places, normal)
    _check_turns(slices)
    down, along = slices[0].numbers("PixelSpacing", 2)  # mm from row to row, from column to column
    if min(down, along) <= 0:
        raise slices[0].refused(f"has a {tag('PixelSpacing')} that is not above 0")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * along, column * down
    affine[:3, 2] = (places[-1] - places[0]) / (len(slices) - 1)
    affine[:3, 3] = places[0]
    columns, rows = (int(slices[0].numbers(name)[0]) for name in ("Columns", "Rows"))
    return slices, *lps_grid(affine, (columns, rows, len(slices)))


def _check_same(first: Slice, other: Slice) -> None:
    differing = [name for name in SAME_TEXTS if first.tags.get(name) != other.tags.get(name)]
    for name, count in SAME_NUMBERS.items():
        one, two = first.numbers(name, count), other.numbers(name, count)
        if not np.allclose(one, two, rtol=ROUNDED, atol=0 if name == "PixelSpacing" else ROUNDED):
            differing.append(name)
    if differing:
        raise ScanError(
            f"holds {first.name} and {other.name}, which differ in {listed([tag(name) for name in differing])}: "
            "give each series a folder of its own"
        )


def _check_even(slices: Sequence[Slice], places: np.ndarray, normal: np.ndarray) -> None:
    """Whether slices lie at equal distances on a line along their normal: one missing would shift the rest."""
    steps = np.diff(places, axis=0)
    apart = steps[steps @ normal > SPACING[0]]
    usual = np.median(apart, axis=0) if len(apart) else np.zeros(3)
    doubled = np.flatnonzero(steps @ normal <= UNEVEN * (usual @ normal))
    if doubled.size:
        one, two = slices[doubled[0]], slices[doubled[0] + 1]
        differ = [tag(name) for name in PHASES if one.tags.get(name) != two.tags.get(name)]
        raise ScanError(
            f"holds {one.name} and {two.name} at the same {tag('ImagePositionPatient')}: "
            + (f"they differ in {differ[0]}; give each phase a folder of its own" if differ else "take one of them out")
        )
    line = places[0] + np.linspace(0, 1, len(places))[:, None] * (places[-1] - places[0])
    aside = np.linalg.norm(places - line, axis=1)
    if aside.max() > UNEVEN * np.linalg.norm(usual):
        lengths = np.linalg.norm(steps, axis=1)
        if np.ptp(lengths) <= UNEVEN * np.median(lengths):
            raise ScanError(
                f"has {slices[int(aside.argmax())].name} {aside.max():.4g} mm beside the line of the other slices, "
                f"by {tag('ImagePositionPatient')}"
            )
        at = int(np.linalg.norm(steps - usual, axis=1).argmax())
        raise ScanError(
            f"has {np.linalg.norm(steps[at]):.4g} mm between {slices[at].name} and {slices[at + 1].name} where "
            f"{np.linalg.norm(usual):.4g} mm are usual, by {tag('ImagePositionPatient')}: are slices missing?"
        )
    if usual @ normal < TILT * np.linalg.norm(usual):
        raise ScanError(
            f"has slices that do not lie behind each other: {tag('ImagePositionPatient')} runs across "
            f"{tag('ImageOrientationPatient')}"
        )


def _check_turns(slices: Sequence[Slice]) -> None:
    """Whether phases take turns: between each other's slices they can make up one even stack."""
    for name in TURNS:
        values = [one.tags.get(name) for one in slices]
        turns = [at for at in range(1, len(values)) if values[at] != values[at - 1]]
        if len(turns) >= len(set(values)) > 1:
            raise ScanError(
                f"holds {slices[turns[0] - 1].name} and {slices[turns[0]].name}, which lie side by side and differ in "
                f"{tag(name)}, as slices of several phases do that take turns: give each phase a folder of its own"
            )
