"""Where in a volume a network looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..boxes import Box
from ..card import Card
from ..options import Way
from ..scan import Spacing
from .body import body_mask, muscle_box

BODY_HU = -300  # between lung (-900..-500 HU) and fat (-120..-80 HU)
MUSCLE_HU = 0  # between fat and muscle (30..70 HU)
ABOVE_CLIP = 10  # HU: where a card's clip hides one of these, what lies this far above the clip counts
AROUND_ORGANS = 20.0  # mm around the organs found by earlier networks or a guide: tumours grow out of organs
SEVERAL_ORGANS = 5  # a network that knows this many shows where the abdomen is; one that knows less may see none of it


@dataclass(frozen=True, eq=False)
class Look:
    """Where windows and labels are wanted.

    box           windows lie over it; None: over everything
    inside        (z, y, x) bool on the host: labels may stand there; None: anywhere
    middle_first  the network shows where the abdomen is, so that the middle of a plane can decide about the rest
    """

    box: Box | None = None
    inside: np.ndarray | None = None
    middle_first: bool = False


def where(volume: Array, card: Card, spacing: Spacing, way: Way, around: Box | None, xp: Any) -> Look:
    """Where to look in a prepared volume (c, z, y, x; spacing in mm), whose first channel is CT.

    around  the box of what earlier networks or a guide found, None if that is not asked for
    """
    if not way.in_body:
        return Look(around)
    inside, box = body(volume, card, spacing, xp)
    middle_first = way.middle_first and around is None and len(card.labels) > SEVERAL_ORGANS
    return Look(around or box, inside, middle_first)


def body(volume: Array, card: Card, spacing: Spacing, xp: Any) -> tuple[np.ndarray, Box]:
    """Where a prepared volume (c, z, y, x; spacing in mm) shows the body, bool on the host, and the box in which organs
    can be."""
    ct = card.channels[0]
    skin, muscle = (ct.of(max(hu, ct.clip[0] + ABOVE_CLIP)) for hu in (BODY_HU, MUSCLE_HU))
    inside = body_mask(volume[0], skin, spacing, xp)
    return inside, muscle_box(volume[0], inside, muscle, spacing, xp)
