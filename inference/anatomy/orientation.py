"""Whether a scan lies as its header says, told from its voxels and from the organs that were found.

A network looks for an organ where it lies in people: of a mirrored scan it calls the liver spleen. So labels that lie
where they should say little, and the signs that decide are taken from the voxels; labels count where they contradict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..boxes import shape_of
from ..labels import BY_KEY
from ..scan import Grid
from .thin import Thin

FEWEST_ORGANS = 5  # a network that knows fewer of them does not show an abdomen
SHORTEST = 100.0  # mm from feet to head: a slab shows too little, a liver's end beside a large spleen
LEAST_ML = 50.0  # of the large organs together; of less nobody can tell where they are
LUNG = 0.1  # of a plane of the body filled with air; the colon's fills less
WARN, CERTAIN = 2, 3  # votes against the header

AXES = ("head-feet", "front-back", "left-right")  # of an array turned to RAS
EXCHANGED = "exchanged"
TURNED = {
    "head-feet": "upside down (head and feet exchanged)",
    "front-back": "mirrored front to back",
    "left-right": "mirrored left to right",
    EXCHANGED: "with its axes exchanged, or on its side",
}
SIDES = {"head-feet": "below", "front-back": "behind", "left-right": "left of"}
BEYOND = 10.0  # mm between centres
# Of an axis, the organ that lies further towards head, front or right, and the other.
PLACES = (
    ("left-right", "liver", "spleen"),
    ("left-right", "liver", "stomach"),
    ("left-right", "right_kidney", "left_kidney"),
    ("front-back", "stomach", "right_kidney"),
    ("front-back", "pancreas", "left_kidney"),
    ("front-back", "liver", "right_kidney"),
    ("head-feet", "liver", "right_kidney"),
    ("head-feet", "spleen", "left_kidney"),
    ("head-feet", "esophagus", "pancreas"),
)
ROD, ROD_MORE = 0.75, 0.2  # of the body's length that bone goes on for along the spine; and how much less across it


@dataclass(frozen=True)
class Sign:
    """What speaks for or against an axis of the header: so many votes for it, or against it where negative."""

    axis: str
    votes: int
    why: str


def _lungs(scan: Thin) -> Iterator[Sign]:
    planes = np.arange(len(scan.air))
    lung = np.where(scan.air > LUNG, scan.air, 0)
    solid = scan.solid.sum(axis=(1, 2))
    if not lung.any() or not solid.any():
        return
    ends = max(len(planes) // 5, 1)
    more = float(scan.air[-ends:].mean() - scan.air[:ends].mean())  # above than below
    middle = float(np.average(planes, weights=lung))
    above = middle - float(np.average(planes, weights=solid))  # the organs: of a chest alone, one end has less air too
    if above * (middle - planes.mean()) > 0:
        votes = 3 if abs(more) > 0.1 and more * above > 0 else 2 if abs(above) > len(planes) / 4 else 0
        yield Sign("head-feet", _signed(votes, above), "the lungs are below the organs")


def _spine(scan: Thin) -> Iterator[Sign]:
    votes = 3 if abs(scan.spine - 0.5) > 0.1 else 1 if abs(scan.spine - 0.5) > 0.05 else 0
    yield Sign("front-back", _signed(votes, 0.5 - scan.spine), "the spine is in front")


def _liver_side(scan: Thin) -> Iterator[Sign]:
    right, left = scan.deep_ml
    share = (right - left) / max(right + left, 1.0)
    votes = 0 if right + left < LEAST_ML else 2 if abs(share) > 0.5 else 1 if abs(share) > 0.25 else 0
    yield Sign("left-right", _signed(votes, share), "most of what is solid below the lungs lies left, as a liver would")


def _liver_and_spleen(scan: Thin) -> Iterator[Sign]:
    liver, spleen = scan.ml.get("liver", 0.0), scan.ml.get("spleen", 0.0)
    if spleen > liver:
        yield Sign("left-right", -1, f"the spleen ({spleen:.0f} ml) is larger than the liver ({liver:.0f} ml)")
    elif liver > 4 * spleen > 0:  # of a mirrored liver the spleen gets more
        yield Sign("left-right", 1, "")


def _places(scan: Thin) -> Iterator[Sign]:
    for axis, one, other in PLACES:
        if one in scan.centre and other in scan.centre:
            along = AXES.index(axis)
            if scan.centre[one][along] - scan.centre[other][along] < -BEYOND:
                yield Sign(axis, -1, f"the {BY_KEY[one].title} is {SIDES[axis]} the {BY_KEY[other].title}")


SIGNS: tuple[Callable[[Thin], Iterator[Sign]], ...] = (_lungs, _spine, _liver_side, _liver_and_spleen, _places)


@dataclass(frozen=True)
class Verdict:
    """How a scan lies against its header.

    reasons  axes of AXES along which it runs the other way, or EXCHANGED alone -> the signs, a phrase each
    sure     those of them with CERTAIN votes or more, after those for the header
    """

    reasons: Mapping[str, tuple[str, ...]]
    sure: tuple[str, ...] = ()

    @property
    def turned(self) -> tuple[str, ...]:
        return tuple(self.reasons)

    @property
    def certain(self) -> bool:
        return self.sure == self.turned

    @property
    def why(self) -> list[str]:
        return [why for reasons in self.reasons.values() for why in reasons]

    @property
    def text(self) -> str:
        """One sentence."""
        how = " and ".join(TURNED[axis] for axis in self.turned)
        return f"the scan seems to lie {how}, against its header: {'; '.join(self.why)}"

    def surely(self, before: Verdict | None = None) -> Verdict:
        """What is sure of it; with `before`, of the scan before that was turned as `before` says."""
        reasons = {axis: self.reasons[axis] for axis in self.sure} | dict(before.reasons if before else {})
        sure = tuple(axis for axis in AXES if axis in reasons)
        return Verdict({axis: reasons[axis] for axis in sure}, sure)


def judge(scan: Thin) -> Verdict | None:
    """What is wrong with the header of a CT of an abdomen; None where nothing seems to be, or nobody can tell."""
    height = len(scan.hu) * scan.spacing[0]
    if len(scan.values) < FEWEST_ORGANS or height < SHORTEST or scan.solid.sum() * scan.voxel_ml < LEAST_ML:
        return None
    depth, width = (n * mm for n, mm in zip(shape_of(scan.box)[1:], scan.spacing[1:], strict=True))
    lengthwise, *across = scan.runs
    if max(across) > ROD and max(across) > lengthwise + ROD_MORE:
        return Verdict({EXCHANGED: ("bone goes on across the body and not along it",)})
    if depth > width and scan.sideways > 0.4:
        return Verdict({EXCHANGED: ("the body is deeper than wide, and the spine is at its side",)})
    signs = _signs(scan)
    votes = {axis: sum(sign.votes for sign in signs[axis]) for axis in AXES}
    reasons = {axis: tuple(sign.why for sign in signs[axis] if sign.votes < 0) for axis in AXES if votes[axis] <= -WARN}
    return Verdict(reasons, tuple(axis for axis in reasons if votes[axis] <= -CERTAIN)) if reasons else None


def speaks_for_its_header(scan: Thin) -> bool:
    """Whether the signs of each axis, taken together, are for the header: more than that none is against it."""
    return all(sum(sign.votes for sign in signs) > 0 for signs in _signs(scan).values())


def _signs(scan: Thin) -> dict[str, list[Sign]]:
    found = [sign for find in SIGNS for sign in find(scan)]
    return {axis: [sign for sign in found if sign.axis == axis] for axis in AXES}


def rightly(grid: Grid, verdict: Verdict) -> Grid:
    """The grid of a scan that lies as a verdict says: its voxels are the same, and what its header says is turned."""
    signs = [-1.0 if axis in verdict.turned else 1.0 for axis in reversed(AXES)]
    return Grid(grid.shape, np.diag([*signs, 1.0]) @ grid.affine, grid.said)


def _signed(votes: int, side: float) -> int:
    return votes if side > 0 else -votes
