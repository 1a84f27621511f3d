"""CT rendered from label maps, the SynthSeg way (Billot et al., Medical Image Analysis 2023), for the abdomen.

`render` draws one volume: the anatomy is deformed, each structure gets its brightness from `priors`, then come gut
contents, vessels, the body wall, tumours, partial volume, slice thickness and noise.
Arrays are (z, y, x) in LPS order; y grows to the back, so air in the gut rises to small y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.labels import IGNORE, TUMOR
from training.phases import Phase
from training.plans import SOFT_TISSUE
from training.settings import Shape
from training.synthesis.anatomy import Anatomy, Tissue
from training.synthesis.priors import PHASE_SHARES, draw_levels
from training.synthesis.tumors import Lesion, grow_lesion, pick_host
from training.warp import smooth_field, source_coordinates, take_nearest

FINE = 2  # slices rendered per slice: partial volume along z needs them
TUMOR_SHARE = 0.55
SHORTENED = 0.25  # share of the volumes in which the scan ends above or below
SCATTER = (25.0, 8.0, 8.0)  # mm by which the middle of a volume strays from that of the organs


@dataclass(frozen=True)
class Rendered:
    """A rendered CT and what is in it."""

    hu: np.ndarray  # (z, y, x) float32
    label: np.ndarray  # (z, y, x) uint8, FLARE codes, IGNORE where the label map ends


class Renderer:
    """One anatomy, ready to be rendered from many times."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        present = [code for code in range(1, TUMOR) if (anatomy.tissue == code).any()]
        middles = [np.argwhere(anatomy.tissue == code).mean(0) for code in present]
        self.middles = np.array(middles) * anatomy.spacing  # of the organs, mm

    def render(self, rng: np.random.Generator, shape: Shape, spacing: np.ndarray) -> Rendered:
        """One volume of `shape` and `spacing` in mm (z, y, x), about the middle of the organs."""
        spacing = spacing / [FINE, 1, 1]
        fine: Shape = (shape[0] * FINE, shape[1], shape[2])
        snap = rng.uniform(4.2, 7) if rng.random() < 0.25 else 0.0
        centre = self.middles.mean(0) + rng.normal(0, SCATTER)
        where = source_coordinates(rng, fine, spacing, centre, self.middles, snap)
        anatomy = self.anatomy
        tissue = take_nearest(anatomy.tissue, where, anatomy.spacing, 0)
        depth = take_nearest(anatomy.depth, where, anatomy.spacing, 0).astype(np.float32) * anatomy.spacing[1]
        wall = take_nearest(anatomy.wall, where, anatomy.spacing, 200).astype(np.float32)
        in_view = (where[0] > -3) & (where[0] < (anatomy.tissue.shape[0] + 1) * anatomy.spacing[0])

        phase = Phase(int(rng.choice(4, p=PHASE_SHARES)))
        levels = draw_levels(rng, phase)
        tissue = _with_body(rng, tissue, wall, spacing)
        hu = _paint(rng, tissue, depth, levels, phase, spacing)
        lesions = [*_cysts(rng, tissue, spacing, levels), *_tumours(rng, tissue, spacing, levels, phase)]
        label = np.where(tissue <= TUMOR, tissue, 0).astype(np.uint8)
        for lesion, is_tumour in lesions:
            hu += lesion.weight * (lesion.value - hu)
            if is_tumour:
                label[lesion.weight > 0.5] = TUMOR
        hu = _scan(rng, hu, spacing)[FINE // 2 :: FINE]
        label, in_view = label[FINE // 2 :: FINE], in_view[FINE // 2 :: FINE]
        hu = _noise(rng, hu)
        _hide(hu, label, ~in_view)  # nothing is known above and below the map
        if rng.random() < SHORTENED:
            _shorten(rng, hu, label)
        return Rendered(hu.astype(np.float32), label)


def _shorten(rng: np.random.Generator, hu: np.ndarray, label: np.ndarray) -> None:
    """Let the scan end inside the volume, above and below, in place."""
    slices = len(hu)
    keep = int(rng.integers(max(slices // 4, 4), slices))
    start = int(rng.integers(0, slices - keep + 1))
    for part in (slice(0, start), slice(start + keep, None)):
        _hide(hu, label, part)


def _hide(hu: np.ndarray, label: np.ndarray, where: slice | np.ndarray) -> None:
    """Make it look like what nnU-Net pads short scans with, in place: 0 once it is normalised."""
    hu[where], label[where] = SOFT_TISSUE["mean"], IGNORE


def _with_body(rng: np.random.Generator, tissue: np.ndarray, wall: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """`tissue` with the nameless voxels named: fat inside, muscle wall, fat under the skin, skin, table, air."""
    shape = tissue.shape
    muscle = rng.uniform(3, 14) + 2.5 * smooth_field(rng, shape, spacing, 60)
    fat = np.maximum(np.exp(rng.uniform(np.log(3), np.log(40))) * (1 + 0.35 * smooth_field(rng, shape, spacing, 90)), 1)
    inner = rng.uniform(-9, -3)
    nameless = tissue == 0
    zones = np.select(
        [wall < inner, wall < muscle, wall < muscle + fat, wall < muscle + fat + 2.2],
        [Tissue.FAT, Tissue.MUSCLE, Tissue.SUBCUTANEOUS, Tissue.SKIN],
        Tissue.AIR,
    ).astype(np.uint8)
    # Fat runs between the muscles of the wall.
    streaks = np.abs(smooth_field(rng, shape, spacing, 18)) < rng.uniform(0, 0.15)
    zones[(zones == Tissue.MUSCLE) & streaks] = Tissue.FAT
    out = np.where(nameless, zones, tissue)
    if rng.random() < 0.6:
        out = _with_table(rng, out)
    return out


def _with_table(rng: np.random.Generator, tissue: np.ndarray) -> np.ndarray:
    """A thin curved board behind the patient."""
    body = tissue.max(axis=(0, 2)) > 0
    back = int(np.flatnonzero(body).max()) if body.any() else 0
    top = back + int(rng.integers(-2, 15))
    bend = rng.uniform(0, 1.5e-3)
    x = np.arange(tissue.shape[2]) - tissue.shape[2] / 2
    line = top - bend * x**2
    y = np.arange(tissue.shape[1])[:, None]
    board = (y >= line) & (y < line + rng.integers(1, 5))
    out = tissue.copy()
    out[(tissue == Tissue.AIR) & board] = Tissue.TABLE
    return out


def _tubes(rng: np.random.Generator, shape: Shape, spacing: np.ndarray, scale: float, width: float) -> np.ndarray:
    """(z, y, x) float32 0..1: thin curved tubes, where two smooth fields are both near zero."""
    a, b = smooth_field(rng, shape, spacing, scale), smooth_field(rng, shape, spacing, scale)
    return np.clip(1.5 - (a * a + b * b) / width**2, 0, 1)


def _paint(
    rng: np.random.Generator,
    tissue: np.ndarray,
    depth: np.ndarray,
    levels: np.ndarray,
    phase: Phase,
    spacing: np.ndarray,
) -> np.ndarray:
    """(z, y, x) float32 HU of the deformed anatomy without lesions, blur and noise."""
    shape: Shape = tissue.shape
    hu = levels[tissue]
    enhanced = [0.0, 0.8, 1.0, 0.7][phase]
    slow = smooth_field(rng, shape, spacing, 40)
    mottle = smooth_field(rng, shape, spacing, rng.uniform(4, 9))

    kidney = (tissue == Tissue.RIGHT_KIDNEY) | (tissue == Tissue.LEFT_KIDNEY)
    cortex = [0.0, rng.uniform(30, 110), rng.uniform(0, 40), rng.uniform(-10, 15)][phase]
    hu += kidney * cortex * (np.clip((rng.uniform(4, 7) - depth + 2 * mottle) / 2, -0.5, 0.5))
    if phase == Phase.ARTERIAL:  # the zebra spleen
        hu += (tissue == Tissue.SPLEEN) * (rng.uniform(0, 40) * smooth_field(rng, shape, spacing, 12))

    bone = tissue == Tissue.BONE
    hu += bone * np.where(depth < 2.2, rng.uniform(150, 500), 90 * mottle)
    heart = tissue == Tissue.HEART
    hu += heart * (enhanced * 45 * np.sign(slow) * (np.abs(slow) > 0.2) - heart * (depth < 6) * enhanced * 30)

    liver = tissue == Tissue.LIVER
    vessels = _tubes(rng, shape, spacing, rng.uniform(22, 40), rng.uniform(0.12, 0.3))
    hu += liver * vessels * (levels[Tissue.PORTAL_VEIN] - levels[Tissue.LIVER]) * rng.uniform(0.3, 1.0)

    lung = tissue == Tissue.LUNG
    hu += lung * (_tubes(rng, shape, spacing, 18, 0.25) * 800 + 40 * mottle)

    fat = tissue == Tissue.FAT
    strands = _tubes(rng, shape, spacing, rng.uniform(12, 25), rng.uniform(0.1, 0.35))
    hu += fat * strands * (levels[Tissue.PORTAL_VEIN] + 90)
    # The unnamed soft tissue between the organs: loops, lymph nodes, diaphragm; more of it in thin patients.
    filled = np.clip(slow + 0.6 * mottle - rng.uniform(0.2, 2.2), 0, 0.3) / 0.3
    hu += fat * filled * (rng.uniform(20, 70) - levels[Tissue.FAT])
    hu += (tissue == Tissue.PANCREAS) * np.minimum(mottle + rng.uniform(-0.5, 1.5), 0) * rng.uniform(0, 60)

    for gut, thickness in (
        (Tissue.STOMACH, rng.uniform(1.5, 6)),
        (Tissue.DUODENUM, rng.uniform(1.5, 5)),
        (Tissue.COLON, rng.uniform(1, 3)),
        (Tissue.SMALL_BOWEL, rng.uniform(1.5, 6)),
        (Tissue.ESOPHAGUS, rng.uniform(2, 7)),
    ):
        hu = _fill_gut(rng, hu, tissue == gut, depth - thickness, gut, slow, mottle)

    # Each structure is a little uneven in itself.
    soft = hu > -200
    hu += soft * (rng.uniform(0, 5) * slow + rng.uniform(0, 6) * mottle)
    return hu.astype(np.float32)


def _fill_gut(
    rng: np.random.Generator,
    hu: np.ndarray,
    gut: np.ndarray,
    inside: np.ndarray,
    kind: Tissue,
    slow: np.ndarray,
    mottle: np.ndarray,
) -> np.ndarray:
    """`hu` with the lumen of `gut` filled; `inside` is mm from the inner wall, positive in the lumen."""
    if not gut.any():
        return hu
    lumen = gut & (inside > 0)
    hu = hu.copy()
    if not lumen.any():
        return hu
    if kind == Tissue.ESOPHAGUS:
        if rng.random() < 0.4:
            hu[lumen & (inside > 1.5)] = rng.uniform(-900, -100)
        return hu
    water, medium = rng.uniform(-5, 35), rng.uniform(120, 400)
    has_medium = rng.random() < 0.25
    if kind == Tissue.COLON:  # faeces with bubbles, or gas, changing along the bowel
        content = rng.uniform(10, 60) + rng.uniform(10, 60) * np.minimum(mottle, 0.5)
        content = np.where(mottle < rng.uniform(-2.5, -0.8), -500.0, content)
        gas = slow > rng.uniform(-0.8, 1.2)
        content = np.where(gas, -950.0, content)
    elif kind == Tissue.STOMACH:
        food = rng.random() < 0.35
        content = water + rng.uniform(10, 50) * mottle if food else np.full_like(mottle, water)
        if has_medium:
            content = np.full_like(mottle, medium)
    else:  # loops differ: collapsed, with fluid, with medium, with gas
        content = np.where(slow > rng.uniform(-0.5, 0.8), water, hu)
        if has_medium:
            content = np.where(slow < rng.uniform(-0.8, 0.5), medium, content)
        content = np.where(mottle + slow > rng.uniform(1.8, 3), -900.0, content)
    if kind in (Tissue.STOMACH, Tissue.DUODENUM) and rng.random() < 0.7:  # gas floats to the front
        rows = np.flatnonzero(lumen.any(axis=(0, 2)))
        surface = rows.min() + rng.uniform(-0.1, 0.6) * (rows.max() - rows.min())
        above = np.arange(hu.shape[1])[None, :, None] < surface
        content = np.where(above, -950.0, content)
    np.copyto(hu, content.astype(np.float32), where=lumen)
    return hu


def _tumours(
    rng: np.random.Generator, tissue: np.ndarray, spacing: np.ndarray, levels: np.ndarray, phase: Phase
) -> list[tuple[Lesion, bool]]:
    """Lesions with label 14; several in the liver at times."""
    if rng.random() >= TUMOR_SHARE:
        return []
    host = pick_host(rng, tissue)
    if host is None:
        return []
    several = host == Tissue.LIVER and rng.random() < 0.3
    enhanced = [0.15, 0.9, 1.0, 0.7][phase]
    count = int(rng.integers(2, 6)) if several else 1
    grown = [grow_lesion(rng, tissue, spacing, host, float(levels[host]), enhanced) for _ in range(count)]
    return [(lesion, True) for lesion in grown if lesion is not None]


def _cysts(
    rng: np.random.Generator, tissue: np.ndarray, spacing: np.ndarray, levels: np.ndarray
) -> list[tuple[Lesion, bool]]:
    """Simple cysts keep their host's label: water with a sharp edge is no tumour."""
    if rng.random() >= 0.12:
        return []
    host = [Tissue.LIVER, Tissue.RIGHT_KIDNEY, Tissue.LEFT_KIDNEY][rng.integers(3)]
    lesion = grow_lesion(rng, tissue, spacing, host, float(levels[host]), 1.0, cyst=True)
    return [] if lesion is None else [(lesion, False)]


def _scan(rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The scanner's blur: the kernel in the plane, the slice thickness along z. `hu` (z * FINE, y, x)."""
    hu = np.clip(hu, -1024, 700)
    in_plane = rng.uniform(0.65, 1.3) / spacing[1]  # mm -> voxels
    thickness = rng.uniform(1.0, 6.0) / spacing[0] / 2.35  # full width at half maximum, mm -> sigma, slices
    return ndimage.gaussian_filter(hu, [thickness, in_plane, in_plane], truncate=2.5)


def _noise(rng: np.random.Generator, hu: np.ndarray) -> np.ndarray:
    """Quantum noise with the grain of a reconstruction kernel; (z, y, x), each slice alone."""
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    sigma = rng.uniform(0.3, 1.3)
    grain = ndimage.gaussian_filter(grain, [0, sigma, sigma], truncate=2.5)
    level = np.exp(rng.uniform(np.log(2.5), np.log(28)))
    return hu + grain * (level / max(float(grain.std()), 1e-3))
