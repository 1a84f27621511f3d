"""The Python API: what it takes, what it refuses and says, and that it may be shared, copied and sent elsewhere."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from inference.errors import EngineError, ScanError, ScanWarning, UnwrittenError, VisceraError, WeightsError
from inference.given import looks_turned, scan_of
from inference.machine import one_thread
from inference.model import Quiet
from inference.options import DENSE, ENGINES
from inference.predictor import Predictor
from inference.scan import Scan
from tests.conftest import ROOT

SPACING = (3.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def predictor(tiny_weights: Path) -> Predictor:
    return Predictor(tiny_weights, device="cpu", precision="f32", threads=1)


@pytest.fixture(scope="module")
def expected(predictor: Predictor, blob: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is odd about it
        labels = predictor(blob, SPACING, "LPS")
    assert labels.any()
    return labels


def test_matrix_products_run_on_one_thread_and_then_as_before(predictor: Predictor, blob: np.ndarray) -> None:
    seen: list[set[int]] = []

    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    class Heard(Quiet):
        def window(self) -> None:
            seen.append(threads())

    with threadpool_limits(2, "blas"):
        if threads() != {2}:
            pytest.skip("the number of threads of this NumPy's library cannot be set")
        predictor.segment(Scan.of(blob, SPACING, "LPS"), Heard())
        assert seen and all(one == {1} for one in seen)
        assert threads() == {2}
        with one_thread:  # another predictor, which is done later
            predictor.segment(Scan.of(blob, SPACING, "LPS"))
            assert threads() == {1}
        assert threads() == {2}


# --- arrays


def as_torch(hu: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(hu)


def in_a_file(hu: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "hu.npy", hu)
    return np.asarray(np.load(folder / "hu.npy", mmap_mode="r"))


class Lent:
    """What another library's array is to NumPy."""

    def __init__(self, hu: np.ndarray) -> None:
        self.__array_interface__ = hu.__array_interface__
        self.hu = hu


TAKEN: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "lists": lambda hu, _: hu.tolist(),
    "a list of planes": lambda hu, _: list(hu),
    "a tensor": lambda hu, _: as_torch(hu),
    "another library's": lambda hu, _: Lent(hu),
    "a file": in_a_file,
    "Fortran's order": lambda hu, _: np.asfortranarray(hu),
    "every second voxel": lambda hu, _: hu.repeat(2, axis=2)[:, :, ::2],
    "backwards": lambda hu, _: hu[::-1].copy()[::-1],
    "big-endian": lambda hu, _: hu.astype(">i2"),
    "int64": lambda hu, _: hu.astype(np.int64),
    "float16": lambda hu, _: hu.astype(np.float16),
    "big-endian float64": lambda hu, _: hu.astype(">f8"),
    "masked nowhere": lambda hu, _: np.ma.masked_array(hu, np.zeros(hu.shape, bool)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_arrays_of_every_kind_give_the_same_labels_and_stay_as_they_are(
    name: str, predictor: Predictor, blob: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    given = TAKEN[name](blob, tmp_path)
    if isinstance(given, np.ndarray) and given.flags.writeable:
        given.setflags(write=False)
    before = blob.copy()
    labels = predictor(given, SPACING, "LPS")
    assert np.array_equal(labels, expected)
    assert np.array_equal(blob, before)


@pytest.mark.parametrize(
    "spacing", [[3, 2, 2], np.array(SPACING), np.array(SPACING, np.float32), deque(SPACING), (3, 2.0, 2)]
)
def test_spacing_of_every_kind(spacing: Any, predictor: Predictor, blob: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(predictor(blob, spacing, "LPS"), expected)


def test_nan_is_air_and_is_said(predictor: Predictor, blob: np.ndarray) -> None:
    odd, air = blob.astype(np.float32), blob.astype(np.float32)
    odd[13, 25, 25], air[13, 25, 25] = np.nan, -1024
    with pytest.warns(ScanWarning, match="1 voxel has no value") as said:
        labels = predictor(odd, SPACING, "LPS")
    assert np.isnan(odd[13, 25, 25])
    assert np.array_equal(labels, predictor(air, SPACING, "LPS"))
    assert said[0].filename == __file__  # the line that called it
    labels, report = predictor.segment(scan_of(odd, SPACING, "LPS"))
    assert report.warnings == ["1 voxel has no value (NaN): taken as air, -1024 HU"]
    assert np.array_equal(labels, predictor(air, SPACING, "LPS"))


def test_the_same_warning_is_shown_for_every_scan(tiny_weights: Path, blob: np.ndarray, tmp_path: Path) -> None:
    odd = blob.astype(np.float32)
    odd[0, 0, 0] = np.nan
    np.save(tmp_path / "odd.npy", odd)
    program = (
        "import sys, numpy; from inference import Predictor; predictor = Predictor(sys.argv[1], threads=1)\n"
        f"for _ in range(3): predictor(numpy.load(sys.argv[2]), {SPACING}, 'LPS')"
    )
    command: list[Any] = [sys.executable, "-c", program, tiny_weights, tmp_path / "odd.npy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("ScanWarning: 1 voxel has no value") == 3


SPOILT: dict[str, Callable[[np.ndarray], Any]] = {
    "an offset": lambda hu: (hu.clip(-1024) + 1024).astype(np.uint16),
    "0 to 1": lambda hu: (hu.clip(-1024, 1024) + 1024) / 2048,
    "0 to 255": lambda hu: ((hu.clip(-160, 240) + 160) / 400 * 255).astype(np.uint8),
    "constant": lambda hu: np.full(hu.shape, 40),
    "NaN everywhere": lambda hu: np.full(hu.shape, np.nan),
    "masked": lambda hu: np.ma.masked_less(hu, -900),
    "bool": lambda hu: hu > 0,
    "complex": lambda hu: hu + 1j,
    "objects": lambda hu: hu.astype(object),
    "text": lambda hu: hu.astype(str),
    "beyond HU": lambda hu: hu.astype(np.int64) * 2**40,
    "modulo 65536": lambda hu: hu.astype(np.uint16),
    "ragged": lambda hu: [hu[0].tolist(), hu[1, :3].tolist()],
    "a plane": lambda hu: hu[0],
    "a batch": lambda hu: hu[None],
    "nothing": lambda hu: None,
    "no voxel": lambda hu: hu[:0],
    "two planes": lambda hu: hu[:2],
    "a number": lambda hu: 7,
    "a path": lambda hu: "x_0000.nii.gz",
    "a Path": lambda hu: Path("x_0000.nii.gz"),
    "bytes": lambda hu: hu.tobytes(),
    "a function": lambda hu: len,
    "a dictionary": lambda hu: {"hu": hu},
    "a nibabel image": lambda hu: nib.Nifti1Image(hu.T, np.eye(4)),
    "a nibabel proxy": lambda hu: nib.Nifti1Image.from_bytes(nib.Nifti1Image(hu.T, np.eye(4)).to_bytes()).dataobj,
    "a SimpleITK image": lambda hu: pytest.importorskip("SimpleITK").GetImageFromArray(hu),
    "a tensor with a gradient": lambda hu: as_torch(hu).float().requires_grad_(),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_no_ct_in_hu_is_a_value_error_of_one_sentence(
    name: str, predictor: Predictor, blob: np.ndarray
) -> None:
    given = SPOILT[name](blob)
    with pytest.raises(ValueError, match="array") as refused:
        predictor(given, SPACING, "LPS")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", ["an offset", "0 to 1", "0 to 255", "beyond HU", "modulo 65536"])
def test_values_that_cannot_be_hu_are_refused_by_default_and_a_warning_if_accepted(
    name: str, predictor: Predictor, blob: np.ndarray, tiny_weights: Path
) -> None:
    given = SPOILT[name](blob)
    with pytest.raises(VisceraError, match=r"accept_intensities=True"):
        predictor(given, SPACING, "LPS")
    with pytest.raises(ScanError):
        predictor.segment(scan_of(given, SPACING, "LPS"))
    accepting = Predictor(tiny_weights, device="cpu", precision="f32", threads=1, accept_intensities=True)
    with pytest.warns(ScanWarning, match="not CT in HU"):
        labels = accepting(given, SPACING, "LPS")
    assert labels.shape == blob.shape


@pytest.mark.parametrize(
    "spacing",
    [None, 3, "321", "3 2 2", ("3", "2", "2"), (3, 2), (3, 2, 2, 1), (3, 2, 0), (3, 2, -2), (3, 2, np.nan),
     (3, 2, np.inf), (3, 2, None), (3, 2, 2j), (True, True, True), {3, 2, 1}, {"z": 3}, [[3, 2, 2]], b"322", len],
    ids=repr,
)  # fmt: skip
def test_spacing_that_is_not_three_numbers(spacing: Any, predictor: Predictor, blob: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"not three numbers above 0: \(z, y, x\) in mm"):
        predictor(blob, spacing, "LPS")


@pytest.mark.parametrize("scale", [0.001, 1000, 0.1, 100])
def test_spacing_in_metres_or_microns_is_not_plausible(scale: float, predictor: Predictor, blob: np.ndarray) -> None:
    with pytest.raises(ScanError, match=r"the array (has the spacing|covers) .* in mm"):
        predictor(blob, np.multiply(SPACING, scale), "LPS")


def test_thick_slices_are_said(predictor: Predictor, blob: np.ndarray) -> None:
    with pytest.warns(ScanWarning, match="spacing 12 x 2 x 2 mm is coarse"):
        predictor(blob, (12, 2, 2), "LPS")


@pytest.mark.parametrize(
    ("shape", "spacing", "orientation", "said"),
    [
        ((40, 256, 256), (5, 1, 1), "LPS", False),
        ((40, 256, 256), (1, 1, 5), "LPS", True),
        ((256, 256, 40), (1, 1, 5), "LPS", True),
        ((256, 256, 40), (5, 1, 1), "LPS", True),
        ((256, 256, 40), (1, 1, 5), "SPL", False),
        ((256, 256, 40), (1, 1, 1), "LPS", False),
        ((256, 256, 256), (1, 1, 5), "LPS", False),
        ((40, 256, 256), (5, 1, 0.5), "LPS", False),
        ((60, 60, 40), (1, 1, 5), "LPS", False),
    ],
)
def test_axes_in_the_order_of_other_libraries_are_said(
    shape: tuple[int, ...], spacing: Any, orientation: str, said: bool
) -> None:
    assert looks_turned(shape, spacing, orientation) == said


@pytest.mark.parametrize(
    "orientation", ["ras", "LPS ", "LP", "", "LPSL", "LPL", None, b"LPS", ("R", "A", "S"), 3, np.eye(4)], ids=repr
)
def test_orientation_that_is_not_three_letters(orientation: Any, predictor: Predictor, blob: np.ndarray) -> None:
    with pytest.raises(ValueError, match="orientation"):
        predictor(blob, SPACING, orientation)


def test_an_affine_stands_for_spacing_and_orientation(
    predictor: Predictor, blob: np.ndarray, expected: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path
) -> None:
    """As nibabel gives both, and turned: the labels lie as the voxels do."""
    image = nib.load(save_scan(tmp_path / "x.nii.gz", blob, SPACING))
    assert np.array_equal(predictor(np.asarray(image.dataobj).T, affine=image.affine), expected)
    turned = nib.as_closest_canonical(image)
    labels = predictor(np.asarray(turned.dataobj).T, affine=turned.affine.tolist())
    assert np.array_equal(labels, expected[:, ::-1, ::-1])


@pytest.mark.parametrize(
    "affine",
    [3, "RAS", np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan), np.ones((4, 4)), np.eye(4).T * 1j, [[1], [2, 3]],
     np.diag([2, 2, 3, 2])],
    ids=repr,
)  # fmt: skip
def test_an_affine_that_is_none(affine: Any, predictor: Predictor, blob: np.ndarray) -> None:
    with pytest.raises(ValueError, match="^affine (is not a matrix of 4 x 4 numbers|.* maps no volume)"):
        predictor(blob, affine=affine)


def test_where_voxels_lie_is_said_once(predictor: Predictor, blob: np.ndarray) -> None:
    for more in ({"spacing": SPACING}, {"orientation": "LPS"}):
        with pytest.raises(ValueError, match="give either it or these two"):
            predictor(blob, affine=np.diag([2, 2, 3, 1]), **more)
    with pytest.raises(ValueError, match="spacing .* and orientation are missing, or affine"):
        predictor(blob)
    with pytest.raises(ValueError, match="orientation None"):
        predictor(blob, SPACING)
    with pytest.raises(ValueError, match="spacing None"):
        predictor(blob, orientation="LPS")


# --- arguments


@pytest.mark.parametrize(
    ("argument", "value"),
    [("threads", value) for value in (0, -1, 1.5, 2.0, True, "2", [2], np.nan)]
    + [("step", value) for value in (0, -0.5, 1.1, "0.5", True, np.nan, [0.5])]
    + [("networks", value) for value in ([], (), "", [""], [None], 3, b"organ", {"organ"}, [b"organ"])]
    + [("device", value) for value in ("gpu", None, 0, "CPU", ["cpu"])]
    + [("engine", value) for value in ("tensorflow", None, "", ["torch"])]
    + [("precision", value) for value in ("float32", 16, None)]
    + [("plan", value) for value in ("Abdomen", 1, True)]
    + [("weights", value) for value in (None, 3, "", ["weights"])]
    + [("accept_intensities", value) for value in ("no", None, 1)],
)
def test_arguments_of_another_kind(argument: str, value: Any, tiny_weights: Path) -> None:
    with pytest.raises(ValueError, match=argument):
        Predictor(**{"weights": tiny_weights, argument: value})


@pytest.mark.parametrize(
    "given", [None, "scan.nii.gz", (1, 2, 3), np.zeros((9, 9, 9))], ids=["None", "path", "tuple", "array"]
)
def test_segment_takes_scans_only(given: Any, predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="expected a Scan, not a "):
        predictor.segment(given)


def test_one_network_may_be_named_by_a_string(tiny_weights: Path, blob: np.ndarray) -> None:
    for networks in ("organ", ["organ"], ("organ",)):
        only = Predictor(str(tiny_weights), networks=networks)
        assert set(only.labels) == {1, 2, 3, 4}
    with pytest.raises(WeightsError, match="unified"):
        Predictor(tiny_weights, networks="unified")


def test_numbers_of_numpy_are_numbers(tiny_weights: Path) -> None:
    arguments: dict[str, Any] = {"threads": np.int64(2), "step": np.float32(0.5)}
    predictor = Predictor(tiny_weights, **arguments)
    assert (predictor.threads, predictor.ways[0].step) == (2, 0.5)


# --- sharing


class Heard(Quiet):
    """A progress that ends the scan at a window."""

    def __init__(self, last: int) -> None:
        self.most, self.windows, self.last = 0, 0, last

    def network(self, name: str, most: int) -> None:
        self.most = most

    def window(self) -> None:
        self.windows += 1
        if self.windows == self.last:
            raise InterruptedError("enough")


def test_what_hears_the_progress_of_a_scan_may_end_it(predictor: Predictor, blob: np.ndarray) -> None:
    scan = scan_of(blob, SPACING, "LPS")
    ending = Heard(last=2)
    with pytest.raises(InterruptedError, match="enough"):
        predictor.segment(scan, ending)
    heard = Heard(last=0)
    labels, record = predictor.segment(scan, heard)
    assert (ending.windows, record.status) == (2, "done") and 2 < heard.windows <= 2 * heard.most
    assert np.array_equal(labels, predictor(blob, SPACING, "LPS"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_threads_that_share_a_predictor_get_the_labels_of_one(
    engine: str, tiny_weights: Path, blob: np.ndarray
) -> None:
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    shared = Predictor(tiny_weights, device="cpu", engine=engine, precision="f32", threads=1)
    scans = [np.roll(blob, shift, axis=2) for shift in (0, 5, 11, 17)] * 2
    alone = [shared(scan, SPACING, "LPS") for scan in scans[:4]] * 2
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda scan: shared(scan, SPACING, "LPS"), scans))
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("gpu", [False, True])
def test_a_scan_that_fails_does_not_stop_the_next(
    gpu: bool, predictor: Predictor, blob: np.ndarray, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which other tests share. No more than the name of a GPU is needed.
    monkeypatch.setattr(predictor, "_lost", threading.Event())
    monkeypatch.setattr(predictor, "choice", replace(predictor.choice, device="cuda" if gpu else "cpu"))
    other = predictor.with_labels(None)

    class Fails(Quiet):
        def __init__(self, error: type[Exception], cause: Exception | None) -> None:
            self.error, self.cause = error, cause

        def network(self, name: str, most: int) -> None:
            raise self.error from self.cause

    lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    errors = (
        (MemoryError, None, False), (UnwrittenError, None, False), (EngineError, None, False),
        (EngineError, lost, True), (ScanError, None, True),
    )  # fmt: skip
    for error, cause, spent in errors:
        with pytest.raises(error):
            predictor.segment(scan_of(blob, SPACING, "LPS"), Fails(error, cause))
        assert predictor.spent == other.spent == (spent and gpu)
    assert np.array_equal(predictor(blob, SPACING, "LPS"), expected)


def test_other_labels_need_no_other_networks(predictor: Predictor, tiny_weights: Path, blob: np.ndarray) -> None:
    name = "organ_2"
    alone = Predictor(tiny_weights, networks=("organ",), labels=(name,), device="cpu")
    every = alone.with_labels(None)
    one = every.with_labels((name,))
    assert list(every.with_labels(name).labels.values()) == [name]  # type: ignore[arg-type]  # as Predictor(labels=name)
    assert list(one.labels.values()) == [name] and len(every.labels) > 1
    assert np.array_equal(one(blob, SPACING, "LPS"), labels := alone(blob, SPACING, "LPS"))
    assert np.array_equal(labels > 0, every(blob, SPACING, "LPS") == 2) and labels.any()
    with pytest.raises(WeightsError, match="no network of this run has a label knee"):
        predictor.with_labels(("knee",))
    with pytest.raises(ValueError, match="network tumor has none of the labels organ_2"):
        predictor.with_labels((name,))


def segment_elsewhere(predictor: Predictor, hu: np.ndarray) -> np.ndarray:
    return predictor(hu, SPACING, "LPS")


def test_another_process_gets_the_same_predictor(predictor: Predictor, blob: np.ndarray, expected: np.ndarray) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        labels, direct = pool.apply(segment_elsewhere, (predictor, blob)), pool.apply(predictor, (blob, SPACING, "LPS"))
    assert np.array_equal(labels, expected) and np.array_equal(direct, expected)


def test_copies_are_loaded_anew_with_the_same_arguments(
    tiny_weights: Path, blob: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tiny_weights.parent)
    first = Predictor(
        tiny_weights.name, networks=["organ"], device="cpu", engine="onnxruntime", plan="dense", step=0.7, threads=1,
        accept_intensities=True,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)  # the folder of the weights was given relative to another one
    for other in (pickle.loads(pickle.dumps(first)), copy.copy(first), copy.deepcopy(first)):
        assert other is not first and other.cards == first.cards and other.choice == first.choice
        assert other.options == first.options and other.ways == (replace(DENSE, step=0.7),)
        assert np.array_equal(other(blob, SPACING, "LPS"), first(blob, SPACING, "LPS"))


def test_a_pickle_does_not_take_other_networks_for_its_own(tiny_weights: Path, tmp_path: Path) -> None:
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    pickled = pickle.dumps(Predictor(weights, networks="organ", threads=1))
    assert len(pickled) < 10_000
    shutil.rmtree(weights / "organ")
    shutil.copytree(tiny_weights / "tumor", weights / "organ")
    with pytest.raises(WeightsError, match="not those that the pickled predictor had"):
        pickle.loads(pickled)
    shutil.rmtree(weights)
    with pytest.raises(WeightsError, match="weights cannot be read: No such file"):
        pickle.loads(pickled)


def test_the_programs_own_weights_are_looked_for_where_a_pickle_is_read() -> None:
    own = Predictor(device="cpu", threads=1)
    assert str(own.cards[0].folder.parent).encode() not in pickle.dumps(own)
    assert pickle.loads(pickle.dumps(own)).cards == own.cards
