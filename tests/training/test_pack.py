"""Packing: what is trained on and what never is, in parts that a transfer can carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from training.pack import VALIDATION, Scan, doubtful, find_scans, pack, read_scan, real_shares
from training.packed import (
    ENDING,
    Packed,
    Spec,
    as_packed,
    packed_file,
    read_packed,
    read_spec,
    write_packed,
    write_spec,
)


@pytest.fixture
def save_pair(blob: np.ndarray, save_scan: Callable[..., Path]) -> Callable[..., None]:
    """Writes a scan, its labels, and which patient it is of."""

    def save(folder: Path, name: str, patient: str | None = None, codes: int = 13) -> None:
        labels = np.zeros(blob.shape, np.uint8)
        for code in range(1, codes + 1):
            labels[5:20, 10 + 3 * code : 12 + 3 * code, 20:50] = code
        save_scan(folder / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
        save_scan(folder / f"{name}.nii.gz", labels, (3.0, 2.0, 2.0))
        if patient:
            (folder / f"{name}.json").write_text(json.dumps({"patient": patient}))

    return save


def test_what_is_packed_is_what_was_there(tmp_path: Path, blob: np.ndarray) -> None:
    label = (blob > 0).astype(np.uint8)
    write_packed(tmp_path, as_packed("x", blob, label, (3.0, 2.0, 1.5)))
    packed = read_packed(packed_file(tmp_path, "x"))
    assert packed.name == "x" and packed.spacing == (3.0, 2.0, 1.5)
    assert np.array_equal(packed.label, label)
    hu = packed.codes * 4.0 - 200
    assert np.abs(hu - np.clip(blob, -200, 300)).max() <= 2
    whole = packed_file(tmp_path, "x").read_bytes()
    for damaged in (b"damaged", b"", whole[:-9]):
        packed_file(tmp_path, "x").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.bz2 cannot be read as a packed scan"):
            read_packed(packed_file(tmp_path, "x"))


def test_patients_of_the_validation_are_never_trained_on(tmp_path: Path, save_pair: Callable[..., None]) -> None:
    data, out = tmp_path / "data", tmp_path / "kit"
    for name in VALIDATION[:3]:
        save_pair(data / "reviewed", name, name)
    for name in VALIDATION[3:]:
        save_pair(data / "labelled", name)
    save_pair(data / "reviewed", "another_date", "HCC_048")  # the patient decides, not the scan's name
    save_pair(data / "labelled", "HCC_048_late")
    save_pair(data / "reviewed", "HCC_049", "HCC_049")
    save_pair(data / "reviewed", "HCC_0481", "HCC_0481")
    said = pack(out, data, 0, 58.0, None)
    spec = read_spec(out / "part_1" / "spec.json")
    assert set(VALIDATION) == {"HCC_048", "LIDC-IDRI-0001", "TCGA-AY-4070A", "ts_slab", "amos_0001"}
    assert spec.shares.keys() == spec.late.keys() == {"HCC_049", "HCC_0481"}
    assert set(spec.validation) == {*VALIDATION, "another_date", "HCC_048_late"}
    assert said == "2 scans, 0 rendered volumes, 7 for validation, in 1 parts"
    for name in (*spec.shares, *spec.validation):
        assert packed_file(out / "part_1", name).is_file()
    for path in (data / "reviewed").glob("HCC_049*"):
        path.unlink()
    for path in (data / "reviewed").glob("HCC_0481*"):
        path.unlink()
    with pytest.raises(ValueError, match="none to train on"):
        pack(out, data, 0, 58.0, None)


def test_a_list_that_trains_on_what_it_validates_on_is_refused(tmp_path: Path) -> None:
    write_spec(tmp_path, Spec({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, ["b"]))
    with pytest.raises(ValueError, match=r"spec\.json has b among the scans to train on and among those to validate"):
        read_spec(tmp_path / "spec.json")
    (tmp_path / "spec.json").write_text('{"shares": {}}')
    with pytest.raises(ValueError, match=r"spec\.json cannot be read"):
        read_spec(tmp_path / "spec.json")


def test_one_patient_has_one_share_whatever_the_number_of_scans() -> None:
    patients = {"a": "a", "b1": "b", "b2": "b", "slab": "slab", "ill1": "ill", "ill2": "ill"}
    whole, tumour = set(range(14)), {*range(15)}
    codes = {"a": whole, "b1": whole, "b2": whole, "slab": {0, 1, 3, 5, 11}, "ill1": tumour, "ill2": whole}
    shares = real_shares(patients, codes)
    assert shares == {"a": 1.0, "b1": 0.5, "b2": 0.5, "slab": 0.4, "ill1": 0.65, "ill2": 0.65}


def test_parts_are_as_small_as_asked_and_packing_goes_on(tmp_path: Path, save_pair: Callable[..., None]) -> None:
    data, out = tmp_path / "data", tmp_path / "kit"
    for name in ("one", "two", "three"):
        save_pair(data / "reviewed", name, name)
    start = tmp_path / "bn.pt"
    start.write_bytes(bytes(1000))
    pack(out, data, 0, 58.0, start)
    sizes = [path.stat().st_size for path in (out / "packed").glob(f"*{ENDING}")]
    pack(out, data, 0, 1.5 * max(sizes) / 1e6, start)
    parts = sorted(out.glob("part_*"))
    assert len(parts) == 3
    for part in parts:
        assert sum(path.stat().st_size for path in part.iterdir()) <= 1.5 * max(sizes)
    names = sorted(path.name for part in parts for path in part.iterdir())
    assert names == sorted([*(path.name for path in (out / "packed").iterdir()), "bn.pt"])
    assert "spec.json" in names
    with pytest.raises(ValueError, match="no part may be so large"):
        pack(out, data, 0, 0.001, None)


def test_scans_are_read_again_only_where_something_has_changed(
    tmp_path: Path, save_pair: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "kit"
    read: list[str] = []

    def reads(scan: Scan) -> Packed:
        read.append(scan.name)
        return read_scan(scan)

    monkeypatch.setattr("training.pack.read_scan", reads)

    def again() -> tuple[list[str], list[str]]:
        """What is read, and what is packed."""
        read.clear()
        capsys.readouterr()
        said = pack(out, data, 0, 58.0, None, corrections)
        assert said.startswith("2 scans")
        assert read_spec(out / "packed" / "spec.json").shares == {"one": 1.0, "two": 0.4}
        return sorted(read), sorted(capsys.readouterr().out.split())

    corrections = None
    both = ["one", "two"]
    save_pair(data / "reviewed", "one", "one")
    save_pair(data / "reviewed", "two", "two", codes=5)
    assert again() == (both, both)
    assert again() == ([], [])
    packed_file(out / "packed", "two").unlink()
    assert again() == (both, ["two"])  # to which the other is bent
    assert again() == ([], [])
    save_pair(data / "reviewed", "two", "two", codes=6)
    assert again() == (both, both)
    corrections = tmp_path / "wrong.json"
    entry = {"scan": "two", "why": "a test", "z": [5, 6], "polygon": [[20, 13], [22, 13], [22, 14]]}
    corrections.write_text(json.dumps([entry | {"from": [1], "to": 2}]))
    assert again() == (both, both)
    assert again() == ([], [])
    (out / "packed.json").write_text("{}")
    assert again() == (both, both)


def test_what_cannot_be_packed_is_named(
    tmp_path: Path, save_pair: Callable[..., None], blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=r"holds no|has no X_0000"):
        find_scans(tmp_path)
    save_pair(tmp_path / "reviewed", "x")
    save_scan(tmp_path / "reviewed" / "unlabelled_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    assert [scan.name for scan in find_scans(tmp_path)] == ["x"]
    save_pair(tmp_path / "labelled", "x")
    with pytest.raises(ValueError, match="has the name of"):
        find_scans(tmp_path)
    for path in (tmp_path / "labelled").iterdir():
        path.unlink()
    labels = tmp_path / "reviewed" / "x.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), labels)
    with pytest.raises(ValueError, match=r"x\.nii\.gz does not lie on the grid of"):
        pack(tmp_path / "kit", tmp_path, 0, 58.0, None)


def test_scans_of_any_orientation_are_packed_alike(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    for name, voxels, orientation in (("lps", blob, "LPS"), ("ras", blob[:, ::-1, ::-1], "RAS")):
        save_scan(tmp_path / "labelled" / f"{name}_0000.nii.gz", voxels, (3.0, 2.0, 1.5), orientation)
        save_scan(tmp_path / "labelled" / f"{name}.nii.gz", (voxels > 0).astype(np.uint8), (3.0, 2.0, 1.5), orientation)
    pack(tmp_path / "kit", tmp_path, 0, 58.0, None)
    lps, ras = (read_packed(packed_file(tmp_path / "kit" / "packed", name)) for name in ("lps", "ras"))
    assert lps.spacing == ras.spacing == (3.0, 2.0, 1.5)
    assert np.array_equal(lps.codes, ras.codes) and np.array_equal(lps.label, ras.label)


@pytest.fixture
def organs(tmp_path: Path, save_scan: Callable[..., Path]) -> Path:
    """Two scans, one and two, of the same five organs."""
    labels = np.zeros((30, 40, 40), np.uint8)
    axes = np.ogrid[:30, :40, :40]
    for code, middle in {1: (15, 12, 12), 2: (9, 26, 30), 3: (20, 12, 30), 4: (14, 20, 20), 11: (22, 30, 12)}.items():
        labels[sum((axis - at) ** 2 for axis, at in zip(axes, middle, strict=True)) <= 16] = code
    for name in ("one", "two"):
        save_scan(tmp_path / "reviewed" / f"{name}_0000.nii.gz", 50 * (labels > 0).astype(np.int16), (6.0, 6.0, 6.0))
        save_scan(tmp_path / "reviewed" / f"{name}.nii.gz", labels, (6.0, 6.0, 6.0))
    return tmp_path


@pytest.mark.parametrize(("patients", "count"), [(("same", "same"), 0), (("t", "two"), 1)])
def test_scans_are_bent_to_other_patients_shapes(patients: tuple[str, str], count: int, organs: Path) -> None:
    for name, patient in zip(("one", "two"), patients, strict=True):
        (organs / "reviewed" / f"{name}.json").write_text(json.dumps({"patient": patient}))
    pack(organs / "kit", organs, 0, 58.0, None)
    assert len(read_packed(packed_file(organs / "kit" / "packed", "one")).bends) == count


def test_scans_are_bent_to_shapes_of_labels_that_are_corrected(organs: Path, tmp_path: Path) -> None:
    corner = {"z": [9, 20], "polygon": [[5, 5], [18, 5], [18, 18], [5, 18]], "from": [0], "to": 1, "why": "a test"}
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([{"scan": "two", **corner}]))
    farthest = []
    for corrections in (None, wrong):
        pack(tmp_path / str(corrections is None), tmp_path, 0, 58.0, None, corrections)
        bends = read_packed(packed_file(tmp_path / str(corrections is None) / "packed", "one")).bends
        assert len(bends) == 1
        farthest.append(np.abs(bends).max())
    assert farthest[0] <= 1 and farthest[1] >= 4, "mm: as long as both livers are alike, nothing is bent"


def test_soft_tissue_about_a_doubted_organ_is_unknown() -> None:
    hu, label = np.full((3, 9, 9), 40.0), np.zeros((3, 9, 9), np.uint8)
    label[:, 4, 4], label[:, 4, 6], hu[:, 2, 4] = 4, 1, -100
    mask = doubtful(hu, label, 4, 4.0, (5.0, 2.0, 2.0))
    assert mask[1, 4, 2] and mask[1, 5, 5]
    assert not mask[1, 4, 6] and not mask[1, 4, 4], "what has a label keeps it"
    assert not mask[1, 2, 4], "fat is no organ"
    assert not mask[1, 4, 1] and mask[0, 4, 2], "6 mm away; the organ is in each plane"
    assert not doubtful(hu, label, 9, 4.0, (5.0, 2.0, 2.0)).any()
