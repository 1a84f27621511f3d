"""What the documents promise is there: flags, modules, fields, exit codes, files."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import inference
from benchmark.__main__ import PROGRAMS
from inference import errors
from inference.labels import TABLE
from tests.conftest import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "weights").glob("*.md")]
USAGE = (ROOT / "docs" / "usage.md").read_text()


def sections(document: Path) -> set[str]:
    """What a link may name behind #: headings, as GitHub writes them there."""
    headings = re.findall(r"^#+ (.*)", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_flag_is_documented_and_every_documented_flag_exists() -> None:
    command = [sys.executable, "-m", "inference", "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    flags = set(re.findall(r"--[a-z-]+", help_text))
    assert set(re.findall(r"^\| `(--[a-z-]+)`", USAGE, re.MULTILINE)) == flags


def test_exit_codes_are_those_of_the_exceptions() -> None:
    table = USAGE.split("## Exit codes")[1].split("##")[0]
    documented = {
        int(code) for code in re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)))
    }
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert documented == raised | {0, 4, 129, 130, 143}


def test_the_label_table_is_that_of_the_code() -> None:
    rows = []
    for one in TABLE:
        codes = ", ".join(f"{code.value} {code.meaning}" for code in (one.type, one.side) if code)
        theirs = f"`{one.totalsegmentator}`" if one.totalsegmentator else ""
        colour = bytes(one.colour).hex()
        rows.append(f"| {one.value} | `{one.key}` | {one.title} | `#{colour}` | {codes} | {theirs} |")
    section = USAGE.split("## Labels")[1].split("\n## ")[0]
    assert re.findall(r"^\| \d.*", section, re.MULTILINE) == rows
    assert {f"{one.category.value} {one.category.meaning}" for one in TABLE if one.category} == set(
        re.findall(r"\d{8,} [A-Z][A-Za-z ]+(?=[,.])", section.split("| value")[0])
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_and_files_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    for module, program in re.findall(r"python3? -m ([a-z_.]+[a-z])(?: ([a-z][a-z-]*))?", text):
        assert importlib.util.find_spec(re.sub("^viscera", "inference", module)), module
        if module == "benchmark" and program:
            assert program in PROGRAMS, program
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if not link.startswith("http"):
            path, _, section = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), link
            assert not section or section in sections(target), link
    for target in re.findall(r"^ {4}make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_every_room_of_inference_has_its_floor() -> None:
    """Folders, and modules that stand in none, have a place in the contract; the document names every module."""
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    contract = (ROOT / "pyproject.toml").read_text().split('"a folder of inference imports only from lower floors"')[1]
    for path in (ROOT / "inference").rglob("*.py"):
        place = path.relative_to(ROOT / "inference")
        if path.name != "__init__.py":
            assert f"`{path.name}`" in architecture, place
            room = place.parts[0].removesuffix(".py")
            assert f"inference.{room}" in contract.split("[[")[0], room


def test_the_public_names_are_documented() -> None:
    names = (ROOT / "docs" / "python.md").read_text().split("Public names: ")[1].split(".")[0]
    assert set(re.findall(r"`(\w+)`", names)) == set(inference.__all__) - {"__version__"}


def test_the_program_says_its_own_name_nowhere() -> None:
    """It is installed under another one: imports are relative, and no text but
    of documents names a module to import or to start."""
    own = re.compile(r"inference(\.\w+)*|.*-m (inference|viscera).*", re.DOTALL)
    for path in (ROOT / "inference").rglob("*.py"):
        tree = ast.parse(path.read_text())
        documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                named = [node.module or ""]
            assert not {name.split(".")[0] for name in named} & {"inference", "viscera"}, path
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                assert not own.fullmatch(node.value), f"{path}:{node.lineno}"


def test_benchmark_starts_nothing_of_training() -> None:
    """An import is held by the contracts; a name in a string is not."""
    for path in (ROOT / "benchmark").rglob("*.py"):
        assert not re.search(r"""["']training\.""", path.read_text()), path
