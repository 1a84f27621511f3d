"""Names as hashes: one case has one, whatever file of it is named."""

from __future__ import annotations

import hashlib

import pytest

from inference.errors import hide_names, shown
from inference.names import FOLDERS, FORMATS


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
