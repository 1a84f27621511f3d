"""The verb `compat`: scripts of another program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.cards import read_cards
from inference.command import cli
from inference.command.compat import REFUSED, parser_of
from inference.compat.structures import wanted
from tests.conftest import ROOT
from tests.inference.compat.test_api import VALUES


def test_the_command_as_a_script_calls_it(
    tmp_path: Path,
    blob: np.ndarray,
    save_scan: Callable[..., Path],
    named_weights: Path,
) -> None:
    save_scan(tmp_path / "ct.nii.gz", blob, (3.0, 2.0, 2.0))
    command = ["-m", "inference", "compat", "totalsegmentator", "-i", "ct.nii.gz", "-o", "seg", "--fast", "-nr", "4"]
    command += ["-s", "--threads", "1", "--weights"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *command, named_weights],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("s -> seg\n")
    assert "warning: fast: no difference here" in done.stderr
    assert {path.name for path in (tmp_path / "seg").iterdir()} == {*(f"{n}.nii.gz" for n in VALUES), "statistics.json"}
    assert set(json.loads((tmp_path / "seg" / "statistics.json").read_text())) == set(VALUES)


def test_the_label_map_is_called_as_it_is_written(
    blob: np.ndarray,
    save_scan: Callable[..., Path],
    named_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scan = save_scan(tmp_path / "ct.nii.gz", blob, (3.0, 2.0, 2.0))
    call: list[str | Path] = [
        "compat",
        "totalsegmentator",
        "-i",
        scan,
        "-o",
        tmp_path / "m",
        "--ml",
        "--threads",
        "1",
        "--weights",
    ]
    assert cli.main([*call, named_weights]) == 0
    assert capsys.readouterr().out.endswith("m.nii\n") and (tmp_path / "m.nii").exists()
    (tmp_path / "m.nii").unlink()
    assert cli.main([*call, named_weights, "--skip_saving"]) == 0
    assert capsys.readouterr().out.endswith(" s, no label maps (--skip_saving)\n")
    assert not (tmp_path / "m.nii").exists()


def test_errors_have_the_exit_codes_of_the_command(
    tmp_path: Path,
    named_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ct.nii.gz").write_bytes(b"no scan")
    call: list[str | Path] = ["compat", "totalsegmentator", "-i", tmp_path / "ct.nii.gz", "-o", tmp_path / "out"]
    assert cli.main([*call, "--weights", named_weights]) == 4
    assert capsys.readouterr().err.startswith("error: ct.nii.gz is not ")
    assert cli.main([*call, "--weights", tmp_path / "none"]) == 9
    assert cli.main([*call, "--weights", named_weights, "-rs", "brain"]) == 2
    assert capsys.readouterr().err.splitlines()[1].startswith("error: the networks do not know brain. They know ")
    (tmp_path / "ct.nii.gz").unlink()
    assert cli.main([*call, "--weights", named_weights]) == 5
    assert capsys.readouterr().err.endswith("ct.nii.gz does not exist\n")
    call[3] = tmp_path / f"{'x' * 300}.nii.gz"  # no name of any file
    assert cli.main([*call, "--weights", named_weights]) == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", [name for names in REFUSED for name in names.split()] + ["--unheard-of", "-x"])
def test_flags_that_are_not_offered_are_refused_by_name(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["compat", "totalsegmentator", "-i", "a", "-o", "b", flag])
    assert stop.value.code == 2 and flag in capsys.readouterr().err


def test_other_tasks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["compat", "totalsegmentator", "-i", "a", "-o", "b", "-ta", "lung_vessels"])
    assert stop.value.code == 2 and "'lung_vessels' is not offered, only total" in capsys.readouterr().err


def test_the_type_of_the_files_may_be_named_as_theirs_is(capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of("viscera")
    assert parser.parse_args(["-i", "a", "-ot", "nifti", "-o", "b"]).output_type == ["nifti"]
    for types in (["dicom_seg"], ["nifti", "dicom_seg"], ["nifti,dicom_seg"]):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(["-i", "a", "-o", "b", "-ot", *types])
        assert stop.value.code == 2 and "is not offered, only nifti: " in capsys.readouterr().err


def test_other_programs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["compat"], ["compat", "nnunet"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
    assert "invalid choice: 'nnunet'" in capsys.readouterr().err


def test_the_document_names_every_flag() -> None:
    document = (ROOT / "docs" / "totalsegmentator.md").read_text()
    flags = {name for action in parser_of("viscera")._actions for name in action.option_strings}
    long = {name for name in flags if name.startswith("--")} - {"--help", "--test"}
    named = {name for span in re.findall(r"`([^`]+)`", document) for name in re.findall(r"--[\w-]+", span)}
    assert long == named


def test_the_document_lists_the_structures_of_the_own_network() -> None:
    section = (ROOT / "docs" / "totalsegmentator.md").read_text().split("## Structures")[1].split("\n    ")[0]
    names = list(wanted(read_cards(ROOT / "weights", None), None).names.values())
    assert re.findall(r"`([a-z]+(?:_[a-z]+)*)`", section) == names
