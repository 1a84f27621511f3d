"""Names as hashes: one case has one, whatever file of it is named."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference.errors import hide_names, shown
from inference.names import FOLDERS, FORMATS
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.errors._hidden", False)


def hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def test_a_case_its_scan_and_all_that_is_written_for_it_have_one_hash() -> None:
    written = [f"DOE JANE.{kind}" for kind in (*FORMATS, *FOLDERS)]
    hide_names()
    for name in ("DOE JANE", "DOE JANE_0000.nii.gz", "DOE JANE.json", "out/DOE JANE.nrrd", *written):
        assert shown(name) == hashed("DOE JANE"), name
    for name in ("a.None", "a.None_0000.nii.gz", "a.None.json"):
        assert shown(name) == hashed("a.None"), name


def test_of_bids_it_is_that_of_the_case_as_bids_calls_it() -> None:
    written = [f"sub-DOEJANE_dseg.{kind}" for kind in (*FORMATS, *FOLDERS)]
    hide_names("bids")
    for name in ("DOE JANE", "DOE JANE_0000.nii.gz", "sub-DOEJANE", "sub-DOEJANE_dseg.json", *written):
        assert shown(name) == hashed("sub-DOEJANE"), name
    assert shown("sub-1_ses-2_ct.nii.gz") == shown("sub-1_ses-2_dseg.nii.gz") == hashed("sub-1_ses-2")
    assert shown("---") == hashed("---")


def test_an_extra_is_one_of_this_program_and_not_of_another_that_is_called_like_its_folder(tmp_path: Path) -> None:
    for name in ("inference", "viscera"):  # the first is on PyPI, and no part of this
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
        )
    (tmp_path / "viscera").symlink_to(ROOT / "inference")
    told = {}
    for name in ("inference", "viscera"):
        program = f"from {name}.errors import how_to_install; print(how_to_install('dicom'))"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        )  # fmt: skip
        told[name] = done.stdout.strip()
    assert told == {"inference": 'pip install ".[dicom]" in the checkout', "viscera": 'pip install "viscera[dicom]"'}
