"""What a scan will take of memory on the CPU, told before its voxels are read: from its grid and from the cards.

The answer is a bound, not a mean: `--max-memory` refuses by it, and holds what it accepts. Where a number depends on
voxels (how much of the scan is not 0, how large the body is), the most that it can be is taken. The factors of the
engines were measured: docs/performance.md shows how far the bound lies above the peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from .card import WEIGHTS_FILE, Card
from .cards import on_their_ways, smaller_ways
from .engines.choose import Choice
from .grids.decode import read_head
from .grids.prepare import CHUNK
from .grids.resize import separate_axis
from .grids.restore import PLANES
from .grids.view import most_seen
from .options import LEAST_VOXELS, Way
from .scan import Scan
from .windows.patches import AT_ONCE
from .windows.planes import BLENDED, SHALLOW, SHARED

NUMBER = 4  # bytes of a float32
USUAL = 128  # numbers a voxel: a U-Net of 32 features, where all of nnU-Net's plans begin, joins two halves of them
COMMAND = 20e6  # bytes: the process that starts the worker
# Of each engine and precision: bytes for each number that the network holds at once, and copies of its weights beside
# those that were loaded.
ENGINES = {
    ("openvino", "f32"): (5.0, 2.0),
    ("openvino", "bf16"): (3.0, 1.5),
    ("openvino", "f16"): (3.0, 1.5),
    ("openvino", "int8"): (3.0, 1.5),
    ("onnxruntime", "f32"): (9.0, 2.0),
    ("torch", "f32"): (6.0, 1.0),
    ("torch", "bf16"): (2.5, 1.0),
}
NORMS = 1.25  # bytes more of OpenVINO in float32 with instance norms: sum_norms_by_rows holds what it sums up
PREVIEW = 64e6  # bytes: 16 for each of the blocks that a preview makes of voxels, 4 million at most (preview/volume.py)
PIECES = 9  # bytes a voxel: what anatomy.pieces.keep_largest takes to tell pieces apart; 8.4 in noise
START = 30e6  # bytes: what an engine takes to compile, and what allocators keep


def fitting(
    scan: Scan,
    cards: Sequence[Card],
    ways: tuple[Way, ...],
    choice: Choice,
    base: int,
    limit: int,
    preview: bool = False,
) -> tuple[tuple[Way, ...] | None, int]:
    """The first of `ways` and of these with smaller and smaller windows that a limit (bytes) allows, None if none is,
    and the estimate of the last that was tried.

    ways                 one for each card
    scan, base, preview  as of `estimate`
    """
    need = estimate(scan, cards, ways, choice, base, preview)
    most = max(way.most_voxels for way in ways)
    while need > limit:
        most = max(most // 2, LEAST_VOXELS)
        smaller = smaller_ways(cards, ways, most)
        if smaller is None:
            return None, need
        ways, need = smaller, estimate(scan, cards, smaller, choice, base, preview)
    return ways, need


def estimate(
    scan: Scan, cards: Sequence[Card], ways: Sequence[Way], choice: Choice, base: int, preview: bool = False
) -> int:
    """Bytes that the process takes at most.

    scan     whose voxels need not be there: its grid, and `voxel_bytes`
    base     bytes that the process held once its networks were loaded
    preview  is made as well
    """
    voxels, (held, most) = prod(scan.grid.shape), scan.voxel_bytes
    channels = len(cards[0].channels)
    stored = voxels * held * channels
    reading = stored + voxels * (most - held)  # again, beside the labels, to measure these
    everyone = on_their_ways(cards, ways)
    engines = sum(_engine(scan, card, own, choice) for card, own in everyone)  # each keeps its own
    preparing, running = (
        max(step) for step in zip(*(_steps(scan, card, own, choice) for card, own in everyone), strict=True)
    )
    if len(everyone) > 1:
        labels = 4 * voxels  # those below, above, joined, and where
        segmenting = stored + labels + max(preparing, running)
    else:  # a scan that is read for this is freed once it is prepared
        segmenting = max(stored + preparing, voxels + running + (stored if scan.channels else 0))
    showing = stored + preview * PREVIEW
    return round(base + COMMAND + START + engines + max(voxels + max(reading, showing), segmenting))


def _engine(scan: Scan, card: Card, way: Way, choice: Choice) -> float:
    """Bytes that an engine holds: weights, activations of a window, and the answer about it."""
    each, copies = ENGINES[choice.engine, choice.precision]
    if (choice.engine, choice.precision) == ("openvino", "f32") and card.window_multiple is None:
        each += NORMS
    names = card.forms["f32"]
    weights = sum((card.folder / name).stat().st_size for name in names) * (2 if WEIGHTS_FILE in names else 1)
    held = card.activations or USUAL
    if card.folds > 1 and not card.apart(choice.precision):
        held += card.folds * len(card.labels)  # engines add up the logits of all folds at the end
    numbers = each * held + NUMBER * (_outputs(card, choice) + card.inputs)
    return copies * weights + numbers * _window(scan, card, way)


def _window(scan: Scan, card: Card, way: Way) -> int:
    """Voxels of a window, at most."""
    multiple = card.wide_multiple(way)
    if multiple is None:
        return prod(card.patch)
    _, _, shape = most_seen(scan.grid, card)
    sizes = (max(shape[0], SHALLOW), *shape[1:])
    all_of_it = prod(ceil(n / m) * m for n, m in zip(sizes, multiple, strict=True))
    return max(min(all_of_it, way.most_voxels), SHALLOW * prod(multiple[1:]))


def _outputs(card: Card, choice: Choice) -> int:
    """Channels of a network's answer."""
    head = read_head(card)
    folds = card.folds if card.apart(choice.precision) else 1
    return folds * len(card.labels) if head is None else head.shape[1] - 1


def _steps(scan: Scan, card: Card, way: Way, choice: Choice) -> tuple[int, int]:
    """Bytes beside voxels, labels and engine: while the scan is prepared, and while windows run and are restored."""
    own, spacing, seen = most_seen(scan.grid, card)
    volume = NUMBER * card.inputs * prod(seen) * (2 if card.after else 1)  # once more where label maps join the image
    lead = separate_axis(spacing, card.spacing_for(spacing), card.resample.image.force_separate_z) or 0
    rows, columns = (max(own[axis], seen[axis]) for axis in range(3) if axis != lead)
    preparing = NUMBER * (own[lead] * prod(seen) // seen[lead] + prod(seen) + 5 * CHUNK * rows * columns)
    if card.after or any(channel.masked for channel in card.channels):
        preparing += 6 * prod(own)  # the mask, and its pieces
    if way.in_body:
        preparing = max(preparing, 4 * prod(seen))
    mask = prod(seen) if way.in_body else 0
    half = choice.precision == "f32" and card.in_half and card.lays_patches(way)
    outputs = _outputs(card, choice)
    numbers = outputs + 1 if card.head and not half else len(card.labels)  # for a voxel that is restored
    plane = seen[1] * seen[2]
    logits = card.resample.logits
    if max(logits.order, logits.order_z) > 1:
        restoring = numbers * (prod(seen) + 2 * PLANES * own[1] * own[2])
    else:
        restoring = 4 * numbers * plane + 8 * own[1] * own[2]
    window = _window(scan, card, way)
    if card.wide_multiple(way):
        shared = (SHARED + BLENDED) * min(plane, window // SHALLOW) if window < prod(seen) else 0
        windows = numbers * shared
    else:
        sums = ceil((card.folds * len(card.labels) + 1) / 2) if half else numbers + 1
        windows = sums * min(card.patch[0], seen[0]) * plane + 3 * max(AT_ONCE, (2 * sums if half else numbers) * plane)
    pieces = PIECES * prod(own) if card.largest else 0  # while no window is held any more
    if card.apart(choice.precision) and not half:
        windows += window * len(card.labels)  # the mean of the folds
    windows += window * (card.inputs + way.tta * (outputs + card.inputs))  # one cut out; mirrored, their sum
    return volume + mask + preparing, volume + mask + max(NUMBER * (windows + restoring), pieces)
