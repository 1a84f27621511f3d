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

from ..arrays import Array, Network
from ..boxes import Shape
from .layout import SIGMA, THIN, Plan, gaussian, halfway, wide_grid

Slab = tuple[int, Array]  # first plane, logits (k, planes, y, x) float32
Padding = tuple[tuple[int, int], ...]  # voxels before and after each axis
BLENDED = 5  # planes on either side of the middle between two windows: beyond, one has nearly all of the weight


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
                yield from _skipped(base + patch[0], z, patch[0], blended, xp)
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
        yield base, _finished(blended, total, base, min(len(volume) - base, patch[0]), inside, xp)
        yield from _skipped(base + patch[0], len(volume), patch[0], blended, xp)


def _skipped(low: int, high: int, depth: int, like: Array, xp: Any) -> Iterator[Slab]:
    """Planes `low` to `high`, where no window was placed: zeros shaped as `like` (k, z, y, x), `depth` at a time."""
    for start in range(low, high, depth):
        yield start, xp.zeros((len(like), min(depth, high - start), *like.shape[2:]), xp.float32)


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
    volume: Array,
    network: Network,
    window: Shape,
    step: float,
    xp: Any,
    progress: Progress,
    inside: np.ndarray,
) -> Iterator[Slab]:
    """Logits of `volume` (z, y, x) in slabs that ascend in z, from windows of a network that takes any size.

    Windows are blended about the middle of their overlap along z, which is where nnU-Net's Gaussian weights leave
    both a share; outside the mask `inside` (z, y, x) all channels are 0. A slab holds until the next one is asked for.
    """
    zs, ys, xs = wide_grid(volume.shape, window, step)
    below: Array = None  # planes of the window before that are not handed on yet, from `low` on
    low = 0
    for index, z in enumerate(zs):
        logits = _planes(volume, network, window, z, ys, xs, xp, progress)
        logits *= xp.asarray(inside[z : z + window[0]])
        if below is not None:
            _blend(below, low, logits, z, SIGMA * window[0])
        if index + 1 < len(zs):
            edge, reach = _seam(z + window[0], zs[index + 1])
            yield low, logits[:, low - z : edge - reach - z]
            low = edge - reach
            below = logits[:, low - z :].copy()  # since the network's next answer may overwrite this one
        else:
            yield low, logits[:, low - z :]


def _seam(end: int, start: int) -> tuple[int, int]:
    """Between a window that ends before plane `end` and one from `start` on: the middle of their overlap, and how
    many planes on either side of it are blended."""
    overlap = end - start
    return start + overlap // 2, min(BLENDED, overlap // 2)


def _blend(below: Array, low: int, above: Array, start: int, sigma: float) -> None:
    """Blend into `above`, whose first plane is `start`, the planes of `below`, whose first is `low`.

    The share of either is that of nnU-Net's Gaussian weights, whose logarithms differ linearly along z.
    """
    end = low + below.shape[1]
    edge, reach = _seam(end, start)
    apart, middle = start + above.shape[1] - end, (start + end) / 2
    for plane in range(edge - reach, edge + reach):
        share = np.float32(1 / (1 + np.exp(-apart / sigma**2 * (plane - middle))))
        target = above[:, plane - start]
        target *= share
        target += (1 - share) * below[:, plane - low]


def _planes(
    volume: Array,
    network: Network,
    window: Shape,
    z: int,
    ys: list[int],
    xs: list[int],
    xp: Any,
    progress: Progress,
) -> Array:
    """Logits (k, z, y, x) of all windows that begin at plane `z`, side by side."""
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
