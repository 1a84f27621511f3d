"""What holds for all: windows, slabs, restoring, names and headers, on examples that hypothesis looks for.

`make check` takes the same few each time, `make soak` many new ones; see conftest.
"""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from inference.boxes import Shape, whole
from inference.errors import ScanError
from inference.formats.nifti.header import LONGEST, label_header, parse
from inference.grids.decode import Decode, winning_channel
from inference.grids.resize import resampled_shape, separate_axis
from inference.grids.restore import restore
from inference.grids.view import View
from inference.names import CHANNEL, case_of, labels_file, record_file
from inference.scan import Grid, check_extent
from inference.windows.layout import grid, starts
from inference.windows.patches import Plan, gaussian, slabs
from inference.windows.planes import SHARED, Planes, wide_grid, wide_window
from tests.inference.cards import make_card
from tests.inference.formats.test_nifti import header


def shapes(least: int, most: int) -> st.SearchStrategy[Shape]:
    return st.tuples(*[st.integers(least, most)] * 3)


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


SEEDS = st.integers(0, 2**32 - 1)
STEPS = st.floats(0.05, 1)

# --- windows


@given(window=st.integers(1, 64), more=st.integers(0, 300), step=STEPS)
def test_windows_cover_their_axis(window: int, more: int, step: float) -> None:
    assume(step * window >= 1)  # else some stand twice
    found = starts(window + more, window, step)
    assert (found[0], found[-1]) == (0, more)
    assert all(0 < after - before <= np.ceil(step * window) for before, after in pairwise(found))


@given(shape=shapes(1, 90), patch=shapes(1, 30), step=STEPS, data=st.data())
def test_every_voxel_of_a_box_is_in_the_window_whose_centre_is_nearest(
    shape: Shape, patch: Shape, step: float, data: st.DataObject
) -> None:
    z, y, x = (max(n, window) for n, window in zip(shape, patch, strict=True))
    parts = []
    for n in (z, y, x):
        start = data.draw(st.integers(0, n - 1))
        parts.append(slice(start, data.draw(st.integers(start + 1, n))))
    box = (parts[0], parts[1], parts[2])
    everywhere, chosen = grid((z, y, x), patch, step), grid((z, y, x), patch, step, box)
    for along, own, window, part in zip(everywhere, chosen, patch, box, strict=True):
        assert set(own) <= set(along)
        for voxel in range(part.start, part.stop):
            far = {start: abs(2 * start + window - 2 * voxel - 1) for start in along}
            nearest = {start for start in along if far[start] == min(far.values())}
            assert nearest & set(own)
            assert all(start <= voxel < start + window for start in nearest)


@given(
    shape=shapes(1, 400),
    multiple=st.sampled_from([(1, 2, 2), (4, 8, 8), (8, 16, 16)]),
    depth=st.integers(2, 12),
    step=st.floats(0.3, 1),
    most=st.integers(1, 5_000_000),
)
def test_wide_windows_cover_the_volume_and_keep_to_their_limit(
    shape: Shape, multiple: Shape, depth: int, step: float, most: int
) -> None:
    window = wide_window(shape, multiple, depth * multiple[0], step, most)
    assert all(n % m == 0 for n, m in zip(window, multiple, strict=True))
    assert np.prod(window) <= most or window[1:] == multiple[1:]
    whole = [max(n, w) for n, w in zip(shape, window, strict=True)]
    along = wide_grid((whole[0], whole[1], whole[2]), window, step)
    for begins, n, size in zip(along, window, whole, strict=True):
        assert (begins[0], begins[-1]) == (0, size - n)
        assert all(after - before <= n for before, after in pairwise(begins))
    shared = min(SHARED, window[0] // 2)
    assert all(after - before <= window[0] - shared for before, after in pairwise(along[0]))


# --- slabs


def network(batch: np.ndarray) -> np.ndarray:
    """Channels that depend on the voxel and on the whole window, as a U-Net's do."""
    return np.concatenate([batch, batch**2, batch * 0 + batch.mean()], axis=1)


def voxelwise(batch: np.ndarray) -> np.ndarray:
    """What a network says that looks no farther than the voxel."""
    return np.concatenate([batch * 0 + 1, batch], axis=1)


def joined(parts: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The slabs side by side: one after the other, without a gap, and as many planes as the volume has."""
    held = [(low, part.copy()) for low, part in parts]
    assert [low for low, _ in held] == [0, *np.cumsum([part.shape[1] for _, part in held])[:-1]]
    whole = np.concatenate([part for _, part in held], axis=1)
    assert whole.shape[1:] == shape
    return whole


@given(patch=shapes(2, 7), more=shapes(0, 12), seed=SEEDS, data=st.data())
def test_slabs_join_to_the_dense_blend_for_any_plan(patch: Shape, more: Shape, seed: int, data: st.DataObject) -> None:
    z, y, x = (n + m for n, m in zip(patch, more, strict=True))
    volume = noise(seed, (z, y, x))
    inside = np.random.default_rng(seed).random((z, y, x)) < 0.9
    corner = st.tuples(*(st.integers(0, m) for m in more))
    corners = sorted(data.draw(st.lists(corner, min_size=1, max_size=12)), key=lambda one: one[0])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(corners) - 1)))) if len(corners) > 1 else []

    def plan() -> Plan:
        for first, last in pairwise([0, *cuts, len(corners)]):
            seen = yield corners[first:last]
            assert len(seen) == last - first

    weights, total, summed = gaussian(patch), np.zeros((z, y, x)), np.zeros((3, z, y, x))
    for one in corners:
        window = tuple(slice(c, c + n) for c, n in zip(one, patch, strict=True))
        summed[(slice(None), *window)] += network(volume[window][None, None])[0] * weights
        total[window] += weights
    dense = np.where((total > 0) & inside, summed / np.where(total > 0, total, 1), 0)
    parts = list(slabs(volume[None], network, plan(), patch, np, inside, winning_channel))
    np.testing.assert_allclose(joined(parts, (z, y, x)), dense, atol=1e-4)


@given(shape=shapes(1, 40), window=shapes(2, 20), step=st.floats(0.3, 1), seed=SEEDS)
def test_columns_of_wide_windows_together_are_the_volume(shape: Shape, window: Shape, step: float, seed: int) -> None:
    assume(step * min(window) >= 1)
    volume, inside = noise(seed, shape), np.random.default_rng(seed).random(shape) < 0.9
    expected, seen = voxelwise(volume[None, None])[0] * inside, np.zeros(shape, bool)
    layout = Planes.over(whole(shape), shape, window, step)
    for box, column in layout.parts(volume[None], voxelwise, inside, np):
        part = expected[(slice(None), *box)]
        np.testing.assert_allclose(joined(column, part.shape[1:]), part, rtol=1e-5, atol=1e-6)
        seen[box] = True
    assert seen.all()


# --- restoring


def interpolated(logits: np.ndarray, n_out: int, axis: int, order: int) -> np.ndarray:
    """nnU-Net's resampling along one axis, for every sample: pixel centres aligned by area, clamped at the edges."""
    n_in = logits.shape[axis]
    at = np.clip(n_in / n_out * (np.arange(n_out) + 0.5) - 0.5, 0, n_in - 1)
    if order == 0:
        return logits.take(np.floor(at + 0.5).astype(int), axis)
    low = np.floor(at).astype(int)
    share = np.expand_dims(at - low, [other for other in range(logits.ndim) if other != axis])
    return logits.take(low, axis) * (1 - share) + logits.take(np.minimum(low + 1, n_in - 1), axis) * share


@given(
    stored=shapes(3, 24),
    spacing=st.tuples(*[st.floats(0.6, 4)] * 3),
    at=st.tuples(*[st.floats(0.9, 5)] * 3),
    codes=st.integers(2, 6),
    spread=st.floats(0.01, 2),
    planes=st.integers(1, 9),
    seed=SEEDS,
)
def test_restored_labels_are_those_of_dense_interpolation(
    stored: Shape,
    spacing: tuple[float, float, float],
    at: tuple[float, float, float],
    codes: int,
    spread: float,
    planes: int,
    seed: int,
) -> None:
    """Codes that differ from voxel to voxel, and logits that are `spread` about them."""
    shape = resampled_shape(stored, spacing, at)
    assume(min(shape) > 0)
    view = View(Grid.of(stored, spacing, "LPS"), (0, 1, 2), (False, False, False), whole(stored), at, shape)
    logits = noise(seed, (codes, *shape)) * np.float32(spread)
    winner = np.random.default_rng(seed).integers(0, codes, [max(n // 2, 1) for n in shape])
    winner = winner[np.ix_(*(np.arange(n) * m // n for n, m in zip(shape, winner.shape, strict=True)))]
    np.put_along_axis(logits, winner[None], np.take_along_axis(logits, winner[None], 0) + 1, 0)
    dense = logits.astype(np.float64)
    for axis, n_out in enumerate(stored):
        dense = interpolated(dense, n_out, axis + 1, 0 if axis == separate_axis(at, spacing) else 1)
    parts = ((low, logits[:, low : low + planes]) for low in range(0, shape[0], planes))
    card = make_card(at, channels=codes)
    labels = restore([(whole(shape), parts)], view, card, Decode.of(card), np)
    taken = np.take_along_axis(dense, labels[None].astype(int), 0)[0]
    assert (dense.max(0) - taken).max() < 1e-5  # float32 may take either of two that are as good as equal


# --- names


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=40)
ENDINGS = st.sampled_from(["", ".nii", ".nii.gz", ".NII.GZ", ".mha", ".nhdr", "_0000.nii.gz", "_0000"])


@given(name=NAMES, ending=ENDINGS)
def test_a_label_map_is_of_the_case_that_it_is_named_after(name: str, ending: str) -> None:
    case = case_of(name + ending)
    assert case and not case.startswith(".")
    labels = labels_file(Path("out"), case)
    assert labels.parent == record_file(labels).parent == Path("out")
    assert record_file(labels).name == f"{case}.json"
    if not case.removesuffix(CHANNEL) or not case.endswith(CHANNEL):  # X_0000.nii.gz is a scan, not a label map
        assert case_of(labels.name) == case


# --- headers


GOOD = [
    bytes(header(kind, order, dtype).binaryblock)
    for kind, order, dtype in product((Nifti1Header, Nifti2Header), "<>", (np.int16, np.float32))
]
ODD = [np.float32(value).tobytes() for value in (np.nan, np.inf, -np.inf, 1e38, -1e-38, 0, -1)]
BYTES = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(ODD), st.sampled_from([one[::-1] for one in ODD]))


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Any bytes, or a good header with some written over and perhaps cut."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=LONGEST))
    block = bytearray(draw(st.sampled_from(GOOD)).ljust(LONGEST, b"\0"))
    for _ in range(draw(st.integers(0, 4))):
        at, over = draw(st.integers(0, LONGEST - 8)), draw(BYTES)
        block[at : at + len(over)] = over
    return bytes(block[: draw(st.sampled_from([LONGEST, 352, 348, 100]))])


@given(block=blocks(), abdominal=st.booleans())
def test_any_bytes_are_a_header_or_a_scan_error_of_one_sentence(block: bytes, abdominal: bool) -> None:
    finest, coarsest = (0.05, 30) if abdominal else (1e-3, 3000)
    found, said = None, ""
    try:
        found = parse(block)
        check_extent(found.grid.shape, found.grid.spacing, abdominal)
    except ScanError as error:
        said = str(error)
    if found is None or said:
        assert said and "\n" not in said
        return
    assert len(found.grid.shape) == 3 and min(found.grid.shape) > 0
    assert np.isfinite(found.grid.affine).all() and all(finest <= mm <= coarsest for mm in found.grid.spacing)
    assert found.scaling is None or np.isfinite(found.scaling).all()
    assert parse(label_header(found.grid, found)).grid.shape == found.grid.shape
