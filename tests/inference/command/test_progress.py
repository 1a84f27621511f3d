"""What is said of the cases of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.command.progress import Progress
from inference.formats.cases import Case
from inference.record import Record


@pytest.mark.parametrize(("found", "said"), [(0, "0 labels"), (1, "1 label"), (2, "2 labels")])
def test_labels_are_counted_in_words(found: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("x", (Path("x_0000.nii.gz"),), (Path("x.nii.gz"),))
    record = Record(case="x", status="done", seconds={"total": 1.5}, labels={str(value): {} for value in range(found)})
    Progress("text").ends(1, "[1/1] x", case, record)
    assert capsys.readouterr().out == f"[1/1] x: 1.5 s, {said} -> x.nii.gz\n"
