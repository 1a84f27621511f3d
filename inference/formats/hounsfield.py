"""Whether an array can be CT in Hounsfield units, and what replaces values that are none.

The rules, why they are as they are and what real CT shows beside their thresholds: docs/safety.md. Shares are of a
sample of the voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import ScanError

SLOPE = (1e-4, 1e4)  # of stored values to HU
AIR, METAL = -1024, 3071  # HU: what 12 bits can hold
HALF_AIR = (-650, -400)  # HU: where air is in CT that was halved, and of lungs only those without air
NO_AIR = -200  # HU: below fat, above lung
ALL_AIR = -500  # HU: what is above it is not air
SOFT = (-200, 200)  # HU: fat and organs
SAMPLE = 64  # voxels along each axis that decide: 260,000 give shares to a tenth of a per cent
GLANCE = 32  # voxels along each side of a plane that tell it from others at first
TISSUE_VALUES = 16  # HU values that tissue has at least in those, since it is noisy
BLOCK = 4  # voxels along each side of a block in a plane
FEWEST_BLOCKS = 4  # along each side of a plane that tell noise from a picture
PLANES = 8  # in which blocks are looked at
BODY = (AIR, 1000)  # HU: what nearly all of it is within
CHANCE = 1.25  # how much more than by chance the means of blocks vary in a picture, at least
ANYWAY = "--accept-intensities (in Python accept_intensities=True) takes it as it is"


def real_numbers(array: np.ndarray) -> np.ndarray:
    """int16 where that holds every value of the array's type, else float32; no copy where it is that already.

    Raises ScanError where its values are no real numbers.
    """
    if array.dtype.kind not in "iuf":
        raise ScanError(f"holds values of type {array.dtype}: CT is one real number per voxel")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is seen as such
        return array.astype(np.int16 if np.can_cast(array.dtype, np.int16) else np.float32, copy=False)


def voxel_bytes(stored: np.dtype, scaled: bool = False) -> tuple[int, int]:
    """Bytes of a voxel once it is read, and at most while it is: as stored, beside what it becomes, or as float32
    beside a copy without what is no number, and where that was."""
    whole = not scaled and np.can_cast(stored, np.int16)
    held = 2 if whole else 4
    same = stored == (np.int16 if whole else np.float32)
    return held, max(stored.itemsize + held * (not same), 0 if whole else 9)


def checked(voxels: np.ndarray, accept: bool = False) -> tuple[np.ndarray, list[str]]:
    """The voxels (z, y, x), finite, and what was odd about them. NaN becomes air; infinities the ends of the CT scale.

    Raises ScanError where they are mostly NaN, and, unless they are to be accepted as they are, where they cannot be
    HU: then that is a warning. What is given is never written to.
    """
    warnings: list[str] = []
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite([low, high]).all():
        voxels, warnings = _finite(voxels)
        low, high = float(voxels.min()), float(voxels.max())
    steps = (slice(None, None, -(-n // SAMPLE)) for n in voxels.shape)
    sample = _Sample(np.sort(voxels[tuple(steps)], axis=None))
    reasons = list(_impossible(sample, low, high))
    if reasons and not accept:
        raise ScanError(f"{reasons[0]}; {ANYWAY}")
    return voxels, [*warnings, *(reasons or _odd(sample, low)), *_copied(voxels), *_noise(voxels)]


def check_slope(slope: float) -> None:
    """Raises ScanError where no CT is stored with this slope of stored values to HU."""
    if not SLOPE[0] <= slope <= SLOPE[1]:
        raise ScanError(f"has the slope {slope:g}: not CT")


def as_they_are(voxels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The voxels (z, y, x) of another image than CT, finite, and what was odd about them. NaN becomes 0.

    Raises ScanError where one is infinite, or all are NaN. What is given is never written to.
    """
    warnings = []
    if missing := int(np.isnan(voxels).sum()):
        if missing == voxels.size:
            raise ScanError("has no value (NaN) in any of its voxels")
        voxels = np.where(np.isnan(voxels), voxels.dtype.type(0), voxels)
        warnings.append(f"{missing} {'voxel has' if missing == 1 else 'voxels have'} no value (NaN): taken as 0")
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite([low, high]).all():
        raise ScanError("holds infinite values")
    if low == high:
        warnings.append(f"every voxel is {low:g}: a constant image")
    return voxels, warnings


def _finite(voxels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    warnings = []
    missing = int(np.isnan(voxels).sum())
    if missing * 2 > voxels.size:
        raise ScanError(f"has no value (NaN) in {missing / voxels.size:.0%} of its voxels")
    if missing:
        warnings.append(
            f"{missing} {'voxel has' if missing == 1 else 'voxels have'} no value (NaN): taken as air, {AIR} HU"
        )
    infinite = int(np.isinf(voxels).sum())
    if infinite:
        warnings.append(
            f"{infinite} {'voxel is' if infinite == 1 else 'voxels are'} infinite: taken as {AIR} or {METAL} HU"
        )
    return np.nan_to_num(voxels, nan=AIR, neginf=AIR, posinf=METAL), warnings


@dataclass(frozen=True)
class _Sample:
    """Some of the voxels, sorted."""

    ordered: np.ndarray

    @cached_property
    def found(self) -> np.ndarray:
        """Without the lowest value, where that is what lies around a scan and not in it."""
        rest = self.ordered[np.searchsorted(self.ordered, self.ordered[0], "right") :]
        return rest if self.ordered[0] < ALL_AIR and len(rest) else self.ordered

    @cached_property
    def not_air(self) -> np.ndarray:
        return self.found[np.searchsorted(self.found, ALL_AIR, "right") :]

    @cached_property
    def solid(self) -> np.ndarray:
        """What is not air; nothing where there is too little of it to say what it looks like."""
        return self.not_air if len(self.not_air) > 0.05 * len(self.found) else self.not_air[:0]

    @property
    def soft(self) -> float:
        """Share of what is not air that is fat or an organ, as most of any patient is."""
        return _between(self.not_air, *SOFT)

    def quantile(self, share: float) -> float:
        return float(self.found[round(share * (len(self.found) - 1))])

    def dark(self, hu: float) -> float:
        """Share below a value and more than 4 HU from the two most frequent values there, which are padding."""
        values, counts = np.unique(np.rint(self.ordered[: np.searchsorted(self.ordered, hu)]), return_counts=True)
        for _ in range(2):
            if len(values):
                other = np.abs(values - values[counts.argmax()]) > 4
                values, counts = values[other], counts[other]
        return float(counts.sum()) / len(self.ordered)


def _above(ordered: np.ndarray, hu: float) -> float:
    """Share of sorted voxels above a value."""
    return 1 - float(np.searchsorted(ordered, hu, "right")) / len(ordered) if len(ordered) else 0.0


def _between(ordered: np.ndarray, low: float, high: float) -> float:
    """Share of sorted voxels from `low` to below `high`."""
    return float(np.diff(np.searchsorted(ordered, (low, high)))[0]) / len(ordered) if len(ordered) else 0.0


def _impossible(sample: _Sample, low: float, high: float) -> Iterator[str]:
    """Why voxels with the lowest and highest value of the whole cannot be HU: a sentence for each reason."""
    darkest, first, fifth = (sample.quantile(share) for share in (0.001, 0.01, 0.05))
    brightest, nearly, ninetieth = (sample.quantile(share) for share in (0.999, 0.95, 0.9))
    if low == high:
        yield f"is a constant image: every voxel is {low:g}"
    if high < ALL_AIR:
        yield f"shows nothing but air: no voxel is above {high:g} HU"
    if high - low < 50 or brightest - darkest < 20:
        yield f"is not CT in HU: its voxels run only from {darkest:g} to {brightest:g} (a label map, or scaled values?)"
    if (share := _above(sample.ordered, 4000)) > 0.1:
        yield f"is not CT in HU: {share:.0%} of its voxels are above 4000 (stored unsigned, or with an offset?)"
    # One organ alone has neither air nor fat, but its values lie on either side of a middle.
    organ = fifth - darkest > 0.15 * (nearly - fifth) and nearly - fifth < 300
    if first > -50 and not organ and (high <= 300 or ninetieth > 400):
        yield (
            f"is not CT in HU: 99% of its voxels are above {first:g}, and air is at -1000, fat at -100 "
            "(stored with an offset, often +1024, windowed to 0..255, or MR?)"
        )
    for hu, most in ((800, 0.25), (400, 0.4)):
        if (share := _above(sample.solid, hu)) > most:
            yield (
                f"is not CT in HU: {share:.0%} of what is not air is above {hu}, as bone and metal are "
                "(stored with an offset or a factor, or with its sign turned?)"
            )
            break
    if (share := sample.dark(-3100)) > 0.05:
        yield f"is not CT in HU: {share:.0%} of its voxels are below -3100 and not padding (stored with a factor?)"
    dark = sample.ordered[: np.searchsorted(sample.ordered, -1300)]
    little = _above(sample.ordered, ALL_AIR) < 0.02 and sample.soft < 0.7  # else an organ alone within padding
    if len(dark) > 0.05 * len(sample.ordered) and little:
        yield (
            f"is not CT in HU: air is at {np.median(dark):g} instead of -1000, and hardly a voxel above {ALL_AIR} "
            "(an intercept of -1024 applied twice?)"
        )


def _odd(sample: _Sample, low: float) -> Iterator[str]:
    """What is unusual about voxels that may be HU all the same."""
    if low > NO_AIR:
        yield (
            f"no voxel is below {low:g} HU, as air and lung would be: labels are wrong if this is "
            "CT stored with an offset (often +1024), windowed CT, or MR"
        )
    half = _between(sample.ordered, *HALF_AIR)
    if half > 0.1 and np.searchsorted(sample.found, -700) < 0.005 * len(sample.found):
        yield (
            f"{half:.0%} of the voxels are from {HALF_AIR[0]} to {HALF_AIR[1]} HU and hardly one is darker: labels are "
            "wrong if air, which is at -1000, lies there because this is CT stored with a factor of 1/2"
        )
    if (share := _above(sample.found, ALL_AIR)) < 0.05 and sample.soft < 0.7:  # else a child in a wide field of view
        yield (
            f"{share:.0%} of the voxels are above {ALL_AIR} HU, as all of a patient but lung is, and few of these are "
            "soft tissue: labels are wrong if an intercept of -1024 was applied twice"
        )
    for hu, most in ((800, 0.08), (METAL, 0.01)):
        if (share := _above(sample.solid, hu)) > most:
            yield f"{share:.0%} of what is not air is above {hu} HU, as bone and metal are"
            break
    if (share := sample.dark(-1300)) > 0.05:
        yield f"{share:.0%} of the voxels are below -1300 HU and not padding: air is at -1000"
    ordered = sample.ordered
    values, counts = np.unique(ordered[np.searchsorted(ordered, NO_AIR, "right") :], return_counts=True)
    if len(values):
        value, count = float(values[counts.argmax()]) + 0, int(counts.max())  # + 0: of -0 it makes 0
        near = np.searchsorted(ordered, value + 20, "right") - np.searchsorted(ordered, value - 20)
        if count > 0.05 * len(ordered) and count > near / 2:
            yield (
                f"{count / len(ordered):.0%} of the voxels are exactly {value:g} HU: labels are wrong if these were "
                "filled in outside the scan, where air would be at -1000"
            )


def _copied(voxels: np.ndarray) -> Iterator[str]:
    """Planes along an axis that show tissue and are equal voxel by voxel, which noise makes impossible."""
    for axis, name in enumerate("zyx"):
        planes = np.moveaxis(voxels, axis, 0)
        rows, columns = (-(-n // GLANCE) for n in planes.shape[1:])
        seen: dict[bytes, int] = {}
        pairs = []
        for number, part in enumerate(planes[:, ::rows, ::columns]):
            twin = seen.setdefault(part.tobytes(), number)
            # Planes of air, padding and what was filled in may well be equal: they have few values.
            alike = twin != number and len(np.unique(part[part > ALL_AIR])) >= TISSUE_VALUES
            if alike and np.array_equal(planes[twin], planes[number]):
                pairs.append((twin, number))
        if pairs:
            more = f", and so are {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
            yield f"planes {pairs[0][0]} and {pairs[0][1]} along {name} are equal voxel by voxel{more}: copied slices?"


def _noise(voxels: np.ndarray) -> Iterator[str]:
    """A middle in which neighbours have nothing in common: means of n voxels vary 1/sqrt(n) as much as the voxels."""
    z, y, x = voxels.shape
    rows, columns = (n // 2 // BLOCK for n in (y, x))
    if min(rows, columns) < FEWEST_BLOCKS:
        return
    middle = voxels[:: -(-z // PLANES), y // 4 :, x // 4 :][:, : rows * BLOCK, : columns * BLOCK]
    # Single voxels of metal, and broken ones, would count for more than all others.
    blocks = middle.clip(*BODY).astype(np.float32).reshape(-1, rows, BLOCK, columns, BLOCK)
    if BLOCK * blocks.mean((2, 4)).std() < CHANCE * blocks.std():
        yield (
            "neighbouring voxels have nothing in common in the middle of the scan: "
            "this is noise, not an image, and labels mean nothing"
        )
