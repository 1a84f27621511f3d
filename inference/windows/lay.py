"""Which layout of windows a network gets."""

from __future__ import annotations

from ..boxes import Box, Shape, grown, shape_of, whole
from ..card import Card
from ..options import Way
from .blend import Half
from .patches import Boxed, Codes, Patches
from .planes import Planes, wide_window


def lay(
    shape: Shape,
    card: Card,
    way: Way,
    box: Box | None,
    middle_first: bool,
    codes: Codes,
    ones: bool,
    half: Half | None,
) -> Patches | Boxed | Planes:
    """The windows of a network over a box of a volume of this shape; None: over all of it.

    middle_first, codes, ones, half  as in Patches
    """
    if multiple := card.wide_multiple(way):
        box = box or whole(shape)
        window = wide_window(shape_of(box), multiple, card.patch[0], way.step, way.most_voxels)
        return Planes.over(box, shape, window, way.step)
    if way.boxed and box:
        box = grown(box, card.patch, shape)
        return Boxed(box, Patches(shape_of(box), card.patch, way.step, None, middle_first, codes, ones, half))
    return Patches(shape, card.patch, way.step, box, middle_first, codes, ones, half)
