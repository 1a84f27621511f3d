"""Label tables for ITK-SNAP and 3D Slicer, read as these programs read them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from inference.labels import TABLE, Structure, structures
from inference.viewers import itk_snap, slicer
from tests.conftest import ROOT


def read_itk_snap(text: str) -> dict[int, tuple[str, tuple[int, ...]]]:
    """Value -> title and colour, of the labels that are shown; any other line fails."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([01])\s+([01])\s+([01])\s+"([^"]*)"', line)
            assert match, line
            value, *colour = map(int, match.groups()[:4])
            if match.groups()[4:7] == ("1", "1", "1"):
                found[value] = match[8], tuple(colour)
    return found


def read_slicer(text: str) -> dict[int, tuple[str, tuple[int, ...]]]:
    assert text.startswith("# Color table file\n")
    found: dict[int, tuple[str, tuple[int, ...]]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            value, name, *colour = line.split(" ")
            red, green, blue, opacity = map(int, colour)
            if opacity:
                assert opacity == 255
                found[int(value)] = name.replace("_", " "), (red, green, blue)
    return found


def test_the_tables_that_users_find_are_those_of_the_code(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-m", "inference.viewers", tmp_path / "made"]
    subprocess.run(command, check=True, cwd=ROOT)
    wanted = {one.value: (one.title, one.colour) for one in TABLE}
    for ending, read in ((".label", read_itk_snap), (".ctbl", read_slicer)):
        text = (ROOT / "docs" / "labels" / f"viscera{ending}").read_text()
        assert text == (tmp_path / f"made{ending}").read_text(), "python -m inference.viewers docs/labels/viscera"
        assert read(text) == wanted


def test_names_of_any_card_break_no_line() -> None:
    odd = Structure(3, 'a "b"\n c', 'a "b"\n c', (1, 2, 3))
    assert read_itk_snap(itk_snap([odd])) == {3: ("a 'b' c", (1, 2, 3))}
    assert read_slicer(slicer([odd])) == {3: ('a "b" c', (1, 2, 3))}


def test_another_networks_names_get_colours_of_their_own(tmp_path: Path, tiny_weights: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "inference.viewers",
        tmp_path / "tiny",
        "--weights",
        tiny_weights,
        "--networks",
        "organ, tumor",  # as the command takes them
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    found = read_itk_snap((tmp_path / "tiny.label").read_text())
    names = {1: "organ_1", 2: "organ_2", 3: "organ_3", 4: "organ_4", 14: "organ_1"}
    assert found == {one.value: (one.title, one.colour) for one in structures(names)}
    assert len({colour for _, colour in found.values()}) == 5


@pytest.mark.parametrize(("flags", "code"), [(["x", "--networks", "nobody"], 9), (["no/folder/x"], 7)])
def test_what_cannot_be_read_or_written_is_said(flags: list[str], code: int) -> None:
    command = [sys.executable, "-m", "inference.viewers", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == code and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
