"""Whether a label map still fits, by the record beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference import __version__
from inference.card import Earlier, Label
from inference.cards import digests
from inference.command.attempts import Attempts
from inference.command.progress import Progress
from inference.command.request import Request
from inference.command.resume import fits, made_from
from inference.formats.cases import Case
from inference.formats.recorded import digest
from inference.options import ABDOMEN, Options
from inference.record import Record
from inference.version import LABELS
from tests.inference.cards import make_card

GONE = object()


@pytest.mark.parametrize(
    ("changes", "fit"),
    [
        ({}, True),
        ({"program": "0.9.9"}, True),  # another version that gives the same labels
        ({"program": __version__, "labels_version": LABELS - 1}, False),
        ({"labels_version": LABELS + 1}, False),
        ({"labels_version": GONE}, False),  # as 0.1.0 wrote it
        ({"labels_version": str(LABELS)}, False),
        ({"status": "failed"}, False),
        ({"plan": "dense"}, False),
        ({"tta": True}, False),
        ({"tta": False}, True),
        ({"output_sha256": "0"}, False),
        ({"input_sha256": "0"}, False),
        ({"program": GONE}, False),  # a record of somebody else's
        ({"warnings": ["odd"]}, True),
        ({"warnings": 3}, False),  # what cannot be said again
        ({"warnings": [None]}, False),
        ({"orientation": {"fix": "not asked for"}}, True),
        ({"orientation": {"fix": "refused"}}, False),
        ({"orientation": {"fix": "done"}}, False),  # which this run does not ask for
    ],
)
def test_labels_of_another_program_are_kept_if_it_gives_the_same(
    changes: dict[str, Any], fit: bool, tmp_path: Path
) -> None:
    case = Case("x", (tmp_path / "x_0000.nii.gz",), (tmp_path / "x.nii.gz",))
    case.scan.write_bytes(b"scan")
    case.labels.write_bytes(b"labels")
    (tmp_path / "card.json").write_text("{}")
    cards = [replace(make_card(), folder=tmp_path)]
    record = {
        "case": "x", "status": "done", "program": "0.1.0", "labels_version": LABELS, "precision": "bf16",
        "plan": "abdomen", "step": 0.5, "weights": digests(cards), "input_sha256": digest(case.scan),
        "output_sha256": digest(case.labels), "warnings": [],
    } | changes  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps({name: value for name, value in record.items() if value is not GONE}))
    assert (fits(case, cards, [ABDOMEN], Options()) is not None) == fit


def test_int8_is_kept_without_being_asked_for_where_all_networks_were_tuned_to_it(tmp_path: Path) -> None:
    case = Case("x", (tmp_path / "x_0000.nii.gz",), (tmp_path / "x.nii.gz",))
    case.scan.write_bytes(b"scan")
    case.labels.write_bytes(b"labels")
    one, other = (make_card(name=name) for name in ("organ", "tumor"))
    tuned = [replace(card, precision="int8") for card in (one, other)]
    cascade = replace(tuned[0], after=Earlier(other, (1,), 0, None))
    for cards, fit in (([one], False), ([tuned[0], other], False), (tuned, True), ([cascade], False)):
        record = {
            "case": "x", "status": "done", "program": "0.1.0", "labels_version": LABELS, "precision": "int8",
            "plan": "abdomen", "step": 0.5, "weights": digests(cards), "input_sha256": digest(case.scan),
            "output_sha256": digest(case.labels), "warnings": [],
        }  # fmt: skip
        (tmp_path / "x.json").write_text(json.dumps(record))
        assert (fits(case, cards, [ABDOMEN], Options()) is not None) == fit
        assert fits(case, cards, [ABDOMEN], Options(precision="int8")) is not None
        assert fits(case, cards, [ABDOMEN], Options(precision="bf16")) is None


def test_what_lies_in_the_place_of_labels_was_made_from_a_scan_only_if_its_record_says_so(tmp_path: Path) -> None:
    case = Case("x", (tmp_path / "x_0000.nii.gz",), (tmp_path / "x.nii.gz",))
    assert made_from(case) is None
    case.labels.write_bytes(b"labels")
    record = {"case": "x", "status": "done", "program": "0.2.0", "input_sha256": "a"}
    (tmp_path / "x.json").write_text(json.dumps(record | {"output_sha256": digest(case.labels)}))
    assert made_from(case) == "a"
    case.labels.write_bytes(b"corrected by hand")  # which is renamed, not replaced
    assert made_from(case) is None


def test_the_record_of_a_case_that_failed_early_says_how_its_labels_were_to_be_made(tmp_path: Path) -> None:
    request = Request(tmp_path, tmp_path, Options(labels=("liver",), anonymous=True, threads=3))
    card = make_card(values=(0, 1, 2))
    card = replace(card, labels=(card.labels[0], Label(1, "liver"), Label(2, "spleen")))
    records: dict[int, Record] = {}
    attempts = Attempts(request, 1, [card], (ABDOMEN,), Progress("text"), records.__setitem__, set())
    assert attempts.begin(1, Case("x", (tmp_path / "x.nii.gz",), (tmp_path / "y.nii.gz",), "it is refused")) is None
    found = records[1]
    assert (found.status, found.error, found.threads) == ("failed", "it is refused", 3)
    assert (found.weights, found.plan, found.step, found.chosen) == (digests([card]), "abdomen", 0.5, ["liver"])
    assert found.anonymous  # as an empty label map that may be written for it is
