"""The folder of probabilities: what is kept, how its files are called, and that it is whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference.boxes import whole
from inference.card import Label
from inference.errors import UnwrittenError
from inference.formats.probabilities import Probabilities
from inference.formats.recorded import digest
from inference.scan import Scan, turned
from tests.conftest import ROOT
from tests.inference.cards import make_card

SHAPE = (4, 5, 6)


@pytest.fixture
def scan() -> Scan:
    return Scan.of(np.zeros(SHAPE, np.int16), (2.0, 1.0, 1.5), "RAS")


def test_parts_in_a_networks_axes_become_files_in_the_scans(tmp_path: Path, scan: Scan) -> None:
    rng = np.random.default_rng(0)
    kept = Probabilities([make_card(channels=3)], tmp_path)
    axes, flips = (2, 0, 1), (True, False, True)
    expected = np.zeros((2, *SHAPE), np.uint8)
    crop = (slice(1, 6), slice(0, 3), slice(0, 5))
    keep = kept.of(make_card(channels=3), lambda stored: turned(stored, axes, flips)[crop])
    for z in range(5):
        values = rng.integers(0, 256, (2, 1, 3, 4), np.uint8)
        values[1] *= z % 2  # nothing of the second label
        keep((slice(z, z + 1), slice(0, 3), slice(1, 5)), values)
        turned(expected, axes, flips)[(slice(None), *crop)][:, z : z + 1, :, 1:5] = values
    written = kept.write(tmp_path / "x.probabilities", scan)
    kept.close()
    assert os.listdir(tmp_path) == ["x.probabilities"]
    assert written.sha256 == digest(tmp_path / "x.probabilities") and written.doubt is None
    for number, values in enumerate(expected, 1):
        image = nib.load(tmp_path / "x.probabilities" / f"label_{number}.nii.gz")
        assert np.allclose(image.affine, scan.grid.affine)
        assert np.abs(image.get_fdata().transpose(2, 1, 0) - values / 255).max() < 1e-6
        assert image.header.get_data_dtype() == np.uint8


def test_another_try_begins_with_nothing(tmp_path: Path, scan: Scan) -> None:
    kept, card = Probabilities([make_card(channels=2)], tmp_path), make_card(channels=2)
    kept.of(card, lambda stored: stored)(whole(SHAPE), np.full((1, *SHAPE), 255, np.uint8))
    kept.clear()
    part = (slice(0, 1), slice(0, 5), slice(0, 6))
    kept.of(card, lambda stored: stored)(part, np.full((1, 1, 5, 6), 51, np.uint8))
    kept.write(tmp_path / "x.probabilities", scan)
    values = nib.load(tmp_path / "x.probabilities" / "label_1.nii.gz").get_fdata()
    assert values[:, :, 0] == pytest.approx(0.2) and not values[:, :, 1:].any()


def test_names_of_labels_become_names_of_files(tmp_path: Path) -> None:
    names = ["background", "left kidney", "Left_Kidney", "../../etc/passwd", "..", "a" * 300, "肝脏", "left/kidney"]
    labels = tuple(Label(value, name) for value, name in enumerate(names))
    card = replace(make_card(), labels=labels)
    files = Probabilities([card], tmp_path).listed()
    assert [one["name"] for one in files.values()] == names[1:]
    assert list(files) == [
        "left_kidney.nii.gz", "Left_Kidney_2.nii.gz", "_.._etc_passwd.nii.gz", "label.nii.gz", f"{'a' * 60}.nii.gz",
        "肝脏.nii.gz", "left_kidney_3.nii.gz",
    ]  # fmt: skip
    several = Probabilities([card, make_card(name="tumor", channels=2)], tmp_path).listed()
    assert several["tumor.label_1.nii.gz"] == {"network": "tumor", "value": 1, "name": "label 1"}
    assert len(several) == len(names) and "organ.left_kidney.nii.gz" in several


def test_a_folder_of_others_is_not_replaced(tmp_path: Path, scan: Scan) -> None:
    folder = tmp_path / "x.probabilities"
    kept = Probabilities([make_card(channels=2)], tmp_path)
    kept.write(folder, scan)
    kept.write(folder, scan)
    (folder / "notes.txt").write_text("by hand")
    before = digest(folder)
    with pytest.raises(UnwrittenError, match="x.probabilities cannot be written"):
        kept.write(folder, scan)
    assert digest(folder) == before and os.listdir(tmp_path) == ["x.probabilities"]


def test_a_folder_that_is_not_there_or_full_is_named(tmp_path: Path, scan: Scan) -> None:
    with pytest.raises(UnwrittenError, match="a file of probabilities cannot be written: No such file"):
        Probabilities([make_card()], tmp_path / "none")
    kept = Probabilities([make_card(channels=2)], tmp_path)
    keep = kept.of(make_card(channels=2), lambda stored: stored)
    with open("/dev/full", "wb", buffering=0) as full:
        kept._file = full  # type: ignore[assignment]
        with pytest.raises(UnwrittenError, match="a file of probabilities cannot be written: No space left"):
            keep(whole(SHAPE), np.full((1, *SHAPE), 255, np.uint8))


WITHOUT_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from inference.boxes import whole
from inference.formats.probabilities import Probabilities
from inference.formats.writing import write
from inference.formats.written import Description
from inference.scan import Grid, Scan
from tests.inference.cards import make_card
shape, path = (64, 1024, 2048), Path(sys.argv[1])  # 134 MB
kept, card = Probabilities([make_card(channels=2)], path), make_card(channels=2)
keep = kept.of(card, lambda stored: stored)
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**26,) * 2)
of_no_size = np.broadcast_to(np.uint8(1), (1, *shape))
scan = Scan((), Grid.of(shape, (1, 1, 1), "LPS"))
for do in (
    lambda: keep(whole(shape), of_no_size),
    lambda: write(of_no_size[0], scan, [path / "x.nii.gz", path / "x.probabilities"], Description({1: "a"}), kept),
):
    try:
        do()
    except Exception as error:
        print(type(error).__name__, str(error)[:60])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_memory_that_runs_out_in_a_window_is_no_fault_of_the_files_but_later_it_is(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MEMORY, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    first, second = done.stdout.splitlines()
    assert first.split()[0].endswith("MemoryError"), done.stderr
    assert second.startswith("UnwrittenError x.probabilities cannot be written: not enough memory")
    assert not list(tmp_path.iterdir())
