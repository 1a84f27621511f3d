"""What cannot be HU is refused, what may be is said, CT passes without a word: on a body made here and on real CT."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.errors import ScanError
from inference.formats.hounsfield import checked, real_numbers
from inference.formats.reading import read_scan

Change = Callable[[np.ndarray], np.ndarray]
RNG = np.random.default_rng(5)
SHAPE = (24, 60, 72)  # (z, y, x)
Y, X = np.meshgrid(np.linspace(-1, 1, SHAPE[1]), np.linspace(-1, 1, SHAPE[2]), indexing="ij")
OUTSIDE = (Y / 0.75) ** 2 + (X / 0.9) ** 2 > 1  # of the body, in each plane
CORNERS = Y**2 + X**2 > 1  # of the field of view


@pytest.fixture(scope="module")
def ct() -> np.ndarray:
    """A trunk with skin, fat, muscle, a liver, bone and lung, and noise of 12 HU, in air: float32."""
    hu = np.full(SHAPE, 55.0)
    hu[:, (Y / 0.6) ** 2 + (X / 0.75) ** 2 > 1] = -100  # fat
    hu[:, OUTSIDE] = -1000
    hu[:14, 20:40, 15:32] = 110  # liver
    hu[14:, 20:40, 15:32] = -850  # lung
    hu[:, 42:48, 33:39] = 350  # spine
    hu[:, 44:46, 35:37] = 700
    return np.rint(hu + RNG.normal(0, 12, SHAPE)).astype(np.float32)


def scaled(hu: np.ndarray, low: float, high: float, to: float) -> np.ndarray:
    """Values between `low` and `high` as 0 to `to`, what is beyond cut off."""
    return (np.clip(hu, low, high) - low) / (high - low) * to


def padded(hu: np.ndarray, value: float) -> np.ndarray:
    return np.where(CORNERS, np.float32(value), hu)


def in_air(hu: np.ndarray) -> np.ndarray:
    """In the middle of planes that are 4 times as high and wide."""
    z, y, x = hu.shape
    seen = RNG.normal(-1000, 12, (z, 4 * y, 4 * x))
    seen[:, y : 2 * y, x : 2 * x] = hu
    return np.rint(seen)


REFUSED: dict[str, tuple[Change, str]] = {
    "0 to 1": (lambda hu: scaled(hu, -1024, 3071, 1), "run only from"),
    "-1 to 1": (lambda hu: scaled(hu, -1024, 3071, 2) - 1, "run only from"),
    "z-score": (lambda hu: (hu - hu.mean()) / hu.std(), "run only from"),
    "0 to 1 and a hot voxel": (lambda hu: hot(scaled(hu, -1024, 3071, 1), 1e30, 1), "run only from"),
    "a window as 0 to 255": (lambda hu: np.rint(scaled(hu, -160, 240, 255)), "0..255"),
    "everything as 0 to 255": (lambda hu: np.rint(scaled(hu, -1024, 3071, 255)), "0..255"),
    "a window as 0 to 100": (lambda hu: scaled(hu, -160, 240, 100.5), "0..255"),
    "everything as 0 to 65535": (lambda hu: scaled(hu, -1024, 1500, 65535), "above 4000"),
    "offset of 1024": (lambda hu: np.maximum(hu + 1024, 0), r"often \+1024"),
    "offset of 1000": (lambda hu: hu + 1000, r"often \+1024"),
    "offset of 1024 around padding": (lambda hu: padded(hu + 1024, -2000), r"often \+1024"),
    "offset of 1024 and NaN": (lambda hu: padded(hu + 1024, np.nan), r"often \+1024"),
    "offset of 1024 and a cold voxel": (lambda hu: hot(hu + 1024, -5000, 1), r"often \+1024"),
    "offset of 32768": (lambda hu: hu + 32768, "above 4000"),
    "modulo 65536": (lambda hu: np.mod(hu, 65536), "above 4000"),
    "times ten": (lambda hu: hu * 10, "a factor|below -3100"),
    "1000 - HU": (lambda hu: 1000 - hu, "often|sign turned"),
    "-HU": (lambda hu: -hu, "sign turned"),
    "air as 3071": (lambda hu: np.where(hu < -900, 3071, hu), "above 800"),
    "air as 3071 around padding": (lambda hu: padded(np.where(hu < -900, 3071, hu), -2000), "above 800"),
    "intercept twice": (lambda hu: np.clip(hu, -1024, None) - 1024, "air is at -20.* instead of -1000"),
    "air alone": (lambda hu: np.where(hu < -900, hu, -990), "nothing but air"),
    "MR": (lambda hu: scaled(hu, -200, 500, 1500), "MR"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_hu_is_refused_with_the_reason_and_the_flag(name: str, ct: np.ndarray) -> None:
    change, reason = REFUSED[name]
    with pytest.raises(ScanError, match=rf"({reason}).*--accept-intensities"):
        checked(change(ct).astype(np.float32))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_hu_is_a_warning_where_it_is_accepted(name: str, ct: np.ndarray) -> None:
    change, _ = REFUSED[name]
    values = change(ct).astype(np.float32)
    voxels, warnings = checked(values, accept=True)
    with pytest.raises(ScanError) as refused:
        checked(values)
    assert any(str(refused.value).startswith(warning) for warning in warnings)
    assert np.array_equal(voxels, np.nan_to_num(values, nan=-1024))


def hot(hu: np.ndarray, value: float, count: int) -> np.ndarray:
    changed = hu.copy()
    changed.reshape(-1)[np.random.default_rng(0).choice(hu.size, count, replace=False)] = value
    return changed


NAN = float("nan")
WARNED: dict[str, tuple[Change, str]] = {
    "one NaN": (lambda hu: hot(hu, NAN, 1), "1 voxel has no value"),
    "NaN around the field of view": (lambda hu: padded(hu, NAN), "no value"),
    "infinite": (lambda hu: hot(hot(hu, np.inf, 1), -np.inf, 2), "infinite"),
    "times two": (lambda hu: hu * 2, "below -1300"),
    "halved": (lambda hu: hu / 2, "a factor of 1/2"),
    "halved within padding": (lambda hu: padded(hu, -2000) / 2, "a factor of 1/2"),
    "air halved and cut off": (lambda hu: np.maximum(hu, -1024) / 2, "a factor of 1/2"),
    "intercept twice and air cut off": (lambda hu: np.maximum(hu - 1024, -1024), "-1024 was applied twice"),
    "divided by ten": (lambda hu: hu / 10, "as air and lung would be"),
    "a window in HU": (lambda hu: np.clip(hu, -160, 240), "as air and lung would be"),
    "a crop with no air": (lambda hu: hu[:12, 18:42, 18:54], "as air and lung would be"),
    "a crop inside the liver": (lambda hu: hu[2:12, 22:38, 17:30], "as air and lung would be"),
    "air and fat cut off at 0": (lambda hu: np.maximum(hu, 0), "exactly 0 HU"),
    "0 outside the body": (lambda hu: np.where(OUTSIDE, 0, hu), "exactly 0 HU"),
    "40 outside the body": (lambda hu: np.where(OUTSIDE, 40, hu), "exactly 40 HU"),
    "0 around the field of view": (lambda hu: padded(hu, 0), "exactly 0 HU"),
    "0 in a fifth of the planes": (lambda hu: np.concatenate([hu[:19], 0 * hu[:5]]), "exactly 0 HU"),
    "a tenth is metal": (lambda hu: hot(hu, 3000, hu.size // 10), "above 800 HU"),
    "second half like the first": (lambda hu: np.concatenate([hu[:12]] * 2), "planes 0 and 12 along z .* 11 more"),
    "second half the first's mirror image": (lambda hu: np.concatenate([hu[:12], hu[11::-1]]), "planes 11 and 12 al"),
    "every plane twice": (lambda hu: hu[:12].repeat(2, axis=0), "planes 0 and 1 along z .* 11 more"),
    "a single plane twice": (lambda hu: np.concatenate([hu[:9], hu[8:-1]]), "planes 8 and 9 along z are equal"),
    "planes along x twice": (lambda hu: np.concatenate([hu[..., :36]] * 2, axis=2), "and .* along x"),
    "planes along y twice": (lambda hu: np.concatenate([hu[:, 15:45]] * 2, axis=1), "and 30 along y"),
    "noise of a normal distribution": (lambda hu: RNG.normal(0, 300, SHAPE), "noise, not an image"),
    "noise of equal shares": (lambda hu: RNG.uniform(-1000, 500, SHAPE), "noise, not an image"),
    "noise around one value": (lambda hu: RNG.normal(40, 100, (32, 32, 32)), "noise, not an image"),
    "noise within padding": (lambda hu: padded(RNG.normal(0, 300, SHAPE), -2000), "noise, not an image"),
    "its voxels in another order": (lambda hu: RNG.permuted(hu.ravel()).reshape(SHAPE), "noise, not an image"),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_may_be_hu_but_is_odd_is_said(name: str, ct: np.ndarray) -> None:
    change, said = WARNED[name]
    _, warnings = checked(change(ct).astype(np.float32))
    assert any(re.search(said, warning) for warning in warnings), warnings


FINE: dict[str, Change] = {
    "as it is": lambda hu: hu,
    "padding of -2000": lambda hu: padded(hu, -2000),
    "padding of -3024": lambda hu: padded(hu, -3024),
    "padding of -32768": lambda hu: padded(hu, -32768),
    "padding that JPEG has blurred": lambda hu: np.where(CORNERS, -2000 + RNG.integers(-3, 4, SHAPE), hu),
    "air cut off at -1024": lambda hu: np.maximum(hu, -1024),
    "air cut off at -1000": lambda hu: np.maximum(hu, -1000),
    "between -400 and -200 as -200": lambda hu: np.where(
        (hu > -400) & (hu < -200), -200, np.where(hu < -400, -1000, hu)
    ),
    "rounded to 4": lambda hu: np.rint(hu / 4) * 4,
    "much noise": lambda hu: hu + RNG.normal(0, 120, SHAPE),
    "noise in which organs can just be seen": lambda hu: np.maximum(hu + RNG.normal(0, 250, SHAPE), -1024),
    "metal": lambda hu: hot(hu, 31743, 300),
    "hot voxels": lambda hu: hot(hu, 1e30, 20),
    "planes of air alone": lambda hu: np.concatenate([np.full_like(hu[:4], -1000), hu, np.full_like(hu[:4], -1000)]),
    "planes of padding alone": lambda hu: np.concatenate([padded(np.full_like(hu[:4], -1024), -3024), hu]),
    "three planes": lambda hu: hu[10:13],
    "a child in a wide field of view": lambda hu: in_air(hu),
    "an organ alone within padding": lambda hu: np.pad(hu[4:12, 24:36, 18:30], 20, constant_values=-3024),
    "turned": lambda hu: hu.transpose(2, 0, 1)[::-1],
}


@pytest.mark.parametrize("name", FINE)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_ct_passes_without_a_word(name: str, dtype: type, ct: np.ndarray) -> None:
    given: np.ndarray = FINE[name](ct).clip(-32768, 32767 if dtype is np.int16 else None).astype(dtype)
    given.setflags(write=False)
    voxels, warnings = checked(given)
    assert warnings == []
    assert voxels is given


@pytest.mark.slow
def test_real_ct_passes_and_the_same_spoilt_does_not(shared_data: Path) -> None:
    folders = ("labelled", "unlabelled", "reviewed")
    paths = [path for folder in folders for path in sorted((shared_data / folder).glob("*_0000.nii.gz"))]
    assert len(paths) > 50
    for path in paths[::5]:
        scan = read_scan(path)
        assert scan.warnings == (), path.name
        middle = len(scan.voxels) // 2
        for part in (scan.voxels[:8], scan.voxels[middle - 2 : middle + 2]):
            assert checked(part)[1] == [], path.name
        noisy = scan.voxels[::4] + RNG.normal(0, 200, scan.voxels[::4].shape)
        assert not [said for said in checked(noisy.astype(np.float32))[1] if "noise" in said], path.name
        for name in ("a window as 0 to 255", "0 to 1", "offset of 1024", "modulo 65536", "1000 - HU", "-HU"):
            with pytest.raises(ScanError):
                checked(REFUSED[name][0](scan.voxels.astype(np.float32)))
        for name in ("halved", "air halved and cut off", "intercept twice and air cut off"):
            change, said = WARNED[name]
            assert any(re.search(said, one) for one in checked(change(scan.voxels.astype(np.float32)))[1]), path.name


@pytest.mark.parametrize("dtype", ["c8", "c16", "?", "O", "U5", "S3", "M8[s]", "m8[s]", "V4"])
def test_values_that_are_no_real_numbers_are_refused_by_type(dtype: str) -> None:
    with pytest.raises(ScanError, match="one real number per voxel"):
        real_numbers(np.zeros((3, 3, 3), dtype))


@pytest.mark.parametrize("dtype", ["i1", ">i2", "u1", ">u2", "i4", "u4", ">i8", "u8", "f2", "f4", ">f8", "longdouble"])
def test_real_numbers_of_every_type_keep_their_values(dtype: str) -> None:
    given = np.arange(100).astype(dtype)
    given.setflags(write=False)
    numbers = real_numbers(given)
    assert np.array_equal(numbers, np.arange(100)) and numbers.dtype.isnative
    assert numbers.dtype == (np.int16 if np.can_cast(given.dtype, np.int16) else np.float32)


def test_numbers_beyond_float32_are_infinite_and_are_seen_as_such(ct: np.ndarray) -> None:
    given = ct.astype(np.float64)
    given[3, 4, 5] = 1e300
    voxels, warnings = checked(real_numbers(given))
    assert voxels[3, 4, 5] == 3071
    assert warnings == ["1 voxel is infinite: taken as -1024 or 3071 HU"]


@pytest.mark.parametrize("value", [NAN, 0, 40])
def test_without_any_contrast_it_is_refused(value: float) -> None:
    with pytest.raises(ScanError, match="NaN|constant"):
        checked(np.full(SHAPE, value, np.float32))


def test_a_constant_image_can_be_accepted_and_nothing_but_nan_cannot() -> None:
    voxels, warnings = checked(np.full(SHAPE, 40, np.float32), accept=True)
    assert (voxels == 40).all() and "is a constant image: every voxel is 40" in warnings
    with pytest.raises(ScanError, match="NaN"):
        checked(np.full(SHAPE, NAN, np.float32), accept=True)
