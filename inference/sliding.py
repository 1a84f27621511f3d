"""Run a window plan over a volume and blend what the network says, slab by slab.

Only as many planes of logits as a window is deep are held: planes behind the current window are
final, are handed on, and their memory is used again. The logits of a whole scan (29 GiB for
15 channels of 512 x 512 x 2000) never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from inference.arrays import Array, Network
from inference.windows import SIGMA, THIN, Plan, Shape, Wide, gaussian, halfway

Slab = tuple[int, Array]  # first plane, logits (k, planes, y, x) float32
Padding = tuple[tuple[int, int], ...]  # voxels before and after each axis
BLENDED = 5  # planes on either side of the middle between two windows: beyond, one has over 97 % of the weight


@dataclass
class Progress:
    """Windows run so far; `step` is called after each."""

    windows: int = 0
    step: Callable[[], None] = field(default=lambda: None)

    def count(self) -> None:
        self.windows += 1
        self.step()


def padding(shape: Shape, patch: Shape) -> Padding:
    """Voxels to add before and after each axis so that a window fits; nnU-Net's pad_nd_image."""
    missing = [max(window - n, 0) for n, window in zip(shape, patch, strict=True)]
    return tuple((m // 2, m - m // 2) for m in missing)


def slabs(
    volume: Array,
    network: Network,
    plan: Plan,
    patch: Shape,
    xp: Any,
    progress: Progress,
    inside: np.ndarray | None = None,
) -> Iterator[Slab]:
    """Blended logits of `volume` (z, y, x), which holds at least one window, in slabs that ascend in z.

    Windows are weighed by the Gaussian of nnU-Net and divided by the sum of the weights. Where
    no window was placed, and outside the mask `inside` (z, y, x), all channels are 0, so that
    channel 0, background, wins. The slabs together cover the volume; each is the caller's to keep.
    """
    weights = xp.asarray(gaussian(patch))
    blended: Array = None
    total: Array = None
    base = 0  # the plane of the volume that is plane 0 of the two accumulators
    group = next(plan, None)
    while group is not None:
        seen = []
        for z, y, x in group:
            window = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
            logits = network(xp.ascontiguousarray(volume[window])[None, None])[0]
            if blended is None:
                blended = xp.zeros((len(logits), patch[0], *volume.shape[1:]), xp.float32)
                total = xp.zeros((patch[0], *volume.shape[1:]), xp.float32)
            if z > base:
                yield base, _finished(blended, total, base, min(z - base, patch[0]), inside, xp)
                if z - base > patch[0]:  # the plan skipped planes
                    yield base + patch[0], xp.zeros((len(blended), z - base - patch[0], *volume.shape[1:]), xp.float32)
                _advance(blended, total, min(z - base, patch[0]))
                base = z
            seen.append(logits[:, :: THIN[0], :: THIN[1], :: THIN[2]].argmax(axis=0))
            xp.multiply(logits, weights, out=logits)
            blended[:, :, window[1], window[2]] += logits
            total[:, window[1], window[2]] += weights
            progress.count()
        try:
            group = plan.send(seen)
        except StopIteration:
            group = None
    if blended is not None:
        yield base, _finished(blended, total, base, len(volume) - base, inside, xp)


def _finished(blended: Array, total: Array, base: int, planes: int, inside: np.ndarray | None, xp: Any) -> Array:
    """The first `planes` planes, divided by their weights; 0 where there is no weight or where it is outside."""
    weight = total[:planes]
    known = weight > 0
    if inside is not None:
        known &= xp.asarray(inside[base : base + planes])
    return blended[:, :planes] / xp.where(known, weight, xp.inf)


def _advance(blended: Array, total: Array, planes: int) -> None:
    """Drop the first `planes` planes and make room for as many at the end."""
    for array in (blended, total[None]):
        kept = array.shape[1] - planes
        array[:, :kept] = array[:, planes:].copy()
        array[:, kept:] = 0


def wide_slabs(
    volume: Array, network: Network, plan: Wide, xp: Any, progress: Progress, inside: np.ndarray
) -> Iterator[Slab]:
    """Logits of `volume` (z, y, x) in slabs that ascend in z, from windows of a network that takes any size.

    Windows are blended about the middle of their overlap along z, which is where nnU-Net's Gaussian weights leave
    both a share; outside the mask `inside` (z, y, x) all channels are 0. A slab holds until the next one is asked for.
    """
    depth = plan.window[0]
    logits: Array = None
    ending: Array = None
    start = low = 0  # what is below plane `low` was handed on
    for z in plan.zs:
        if logits is not None:
            overlap = start + depth - z
            edge, reach = z + overlap // 2, min(BLENDED, overlap // 2)
            yield low, logits[:, low - start : edge - reach - start]
            # A copy, since the network's next answer may overwrite this one.
            low, ending = edge - reach, logits[:, edge - reach - start : edge + reach - start].copy()
        logits = _planes(volume, network, plan, z, xp, progress)
        logits *= xp.asarray(inside[z : z + depth])
        if z > start:
            share = _share_of_next(np.arange(low, low + ending.shape[1]), start, z, depth)
            _blend(ending, logits[:, low - z :], share)
        start = z
    yield low, logits[:, low - start :]


def _share_of_next(planes: np.ndarray, start: int, after: int, depth: int) -> np.ndarray:
    """What share the window that starts at `after` has beside the one at `start`: that of nnU-Net's Gaussian weights,
    whose logarithms differ linearly along z."""
    steepness = (after - start) / (SIGMA * depth) ** 2
    return (1 / (1 + np.exp(-steepness * (planes - (start + after + depth) / 2)))).astype(np.float32)


def _blend(below: Array, above: Array, share: np.ndarray) -> None:
    """Blend the planes of logits `below` into the first ones of `above`, whose share by plane is given."""
    for plane, part in enumerate(share):
        above[:, plane] *= part
        above[:, plane] += (1 - part) * below[:, plane]


def _planes(volume: Array, network: Network, plan: Wide, z: int, xp: Any, progress: Progress) -> Array:
    """Logits (k, z, y, x) of all windows that begin at plane `z`, side by side."""
    window, ys, xs = plan.window, plan.ys, plan.xs
    whole: Array = None
    for y, x in product(ys, xs):
        part = volume[z : z + window[0], y : y + window[1], x : x + window[2]]
        logits = network(xp.ascontiguousarray(part)[None, None])[0]
        progress.count()
        if len(ys) == len(xs) == 1:
            return logits
        if whole is None:
            whole = xp.empty((len(logits), window[0], *volume.shape[1:]), xp.float32)
        rows, columns = _nearest(ys, y, window[1], volume.shape[1]), _nearest(xs, x, window[2], volume.shape[2])
        whole[:, :, rows, columns] = logits[:, :, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return whole


def _nearest(starts: list[int], start: int, window: int, size: int) -> slice:
    """The part of an axis that is nearest to the centre of the window at `start`."""
    index = starts.index(start)
    low = halfway(starts[index - 1], start, window) if index else 0
    high = halfway(start, starts[index + 1], window) if index + 1 < len(starts) else size
    return slice(low, high)
