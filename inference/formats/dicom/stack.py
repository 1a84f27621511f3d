"""Slices as a volume: in their order, evenly apart, of one phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ScanError
from ...names import listed
from ...scan import FEWEST, SPACING, Grid
from ..geometry import lps_grid
from .slices import PHASES, Slice, tag

# What slices of one series have in common: as texts, and as numbers that may be rounded in another way.
SAME_TEXTS = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")
SAME_NUMBERS = {"PixelSpacing": 2, "ImageOrientationPatient": 6}
TURNS = PHASES[:3]  # these do not come back along the slices of one phase
ROUNDED = 1e-3  # share of a length, or cosine
UNEVEN = 0.1  # share of the distance of slices by which one may lie elsewhere
UPRIGHT = "its slices are moved upright for the networks, and the labels back"
TILT = 0.85  # least cosine between the stack and its slices' normal: gantries tilt by 30 degrees at most


@dataclass(frozen=True)
class Stack:
    """Slices in their order along the normal, and the grid that they make up.

    places    of each slice along z, in planes of the grid; whole numbers unless they are unevenly apart
    warnings  one sentence each for what is odd about it
    """

    slices: list[Slice]
    grid: Grid
    places: np.ndarray
    warnings: list[str]


def stack(slices: Sequence[Slice], resample: bool = False) -> Stack:
    """The stack of slices, of which no two are copies of one. Raises ScanError.

    resample  slices that are unevenly apart are taken as well, and make up an even grid
    """
    for one in slices:
        check_same(slices[0], one)
    if len(slices) < FEWEST:
        raise ScanError(f"holds {len(slices)} of the {FEWEST} slices that a volume needs at least")
    row, column, normal = directions(slices[0])
    corners = np.array([one.numbers("ImagePositionPatient", 3) for one in slices])
    order = np.argsort(corners @ normal, kind="stable")
    slices, corners = [slices[at] for at in order], corners[order]
    usual = _usual_step(slices, corners, normal)
    count, warnings, places = len(slices), [], np.arange(len(slices), dtype=float)
    try:
        _check_even(slices, corners, usual)
    except ScanError as error:
        if _aside(corners, normal) > UNEVEN * np.linalg.norm(usual):
            raise
        if not resample:
            advice = "are slices missing? --uneven resample interpolates between them"
            raise ScanError(f"{error}: {advice}") from error
        along = (corners - corners[0]) @ normal
        count = round(along[-1] / (usual @ normal)) + 1
        places = along / along[-1] * (count - 1)
        warnings.append(f"{error}: resampled to {count} planes, which lie evenly")
    if usual @ normal < TILT * np.linalg.norm(usual):
        raise ScanError(
            f"has slices that do not lie behind each other: {tag('ImagePositionPatient')} runs across "
            f"{tag('ImageOrientationPatient')}"
        )
    _check_turns(slices)
    down, across = slices[0].numbers("PixelSpacing", 2)  # mm from row to row, from column to column
    if min(down, across) <= 0:
        raise slices[0].refused(f"has a {tag('PixelSpacing')} that is not above 0")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * across, column * down
    affine[:3, 2] = (corners[-1] - corners[0]) / (count - 1)
    affine[:3, 3] = corners[0]
    columns, rows = (int(slices[0].numbers(name)[0]) for name in ("Columns", "Rows"))
    grid, odd = lps_grid(affine, (columns, rows, count), UPRIGHT)
    return Stack(slices, grid, places, [*warnings, *odd])


def directions(one: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (x, y, z) LPS: along the rows of a slice, along its columns, and at right angles to both.

    Raises ScanError.
    """
    row, column = one.numbers("ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=ROUNDED):
        raise one.refused(f"has directions that are not at right angles in {tag('ImageOrientationPatient')}")
    return row, column, np.cross(row, column)


def differing(one: Slice, other: Slice) -> list[str]:
    """The tags that slices of one volume have in common, and these two do not. Raises ScanError."""
    names = [name for name in SAME_TEXTS if one.tags.get(name) != other.tags.get(name)]
    for name, count in SAME_NUMBERS.items():
        mine, theirs = one.numbers(name, count), other.numbers(name, count)
        if not np.allclose(mine, theirs, rtol=ROUNDED, atol=0 if name == "PixelSpacing" else ROUNDED):
            names.append(name)
    return names


def check_same(first: Slice, other: Slice) -> None:
    """Raises ScanError."""
    if names := differing(first, other):
        raise ScanError(
            f"holds {first.name} and {other.name}, which differ in {listed([tag(name) for name in names])}: "
            "give each series a folder of its own"
        )


def _usual_step(slices: Sequence[Slice], corners: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """From one slice to the next, mm. Raises ScanError where two lie at one place."""
    steps = np.diff(corners, axis=0)
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
    return usual


def _check_even(slices: Sequence[Slice], corners: np.ndarray, usual: np.ndarray) -> None:
    """Whether slices lie at equal distances on a line: one missing would shift the rest. Raises ScanError."""
    line = corners[0] + np.linspace(0, 1, len(corners))[:, None] * (corners[-1] - corners[0])
    off = np.linalg.norm(corners - line, axis=1)
    steps = np.diff(corners, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    if off.max() <= UNEVEN * np.linalg.norm(usual):
        return
    if np.ptp(lengths) <= UNEVEN * np.median(lengths):
        raise ScanError(
            f"has {slices[int(off.argmax())].name} {off.max():.4g} mm beside the line of the other slices, "
            f"by {tag('ImagePositionPatient')}"
        )
    at = int(np.linalg.norm(steps - usual, axis=1).argmax())
    raise ScanError(
        f"has {lengths[at]:.4g} mm between {slices[at].name} and {slices[at + 1].name} where "
        f"{np.linalg.norm(usual):.4g} mm are usual, by {tag('ImagePositionPatient')}"
    )


def _aside(corners: np.ndarray, normal: np.ndarray) -> float:
    """mm that slices lie beside the line from the first to the last, however far along it."""
    line = corners[-1] - corners[0]
    along = (corners - corners[0]) @ normal / (line @ normal)
    return float(np.linalg.norm(corners - corners[0] - along[:, None] * line, axis=1).max())


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
