"""MHub's pipeline as docs/mhub has it, by MHub's own library: from a CT series to the SEG in the output's folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.labels import TABLE
from tests.conftest import ROOT, command
from tests.made.ct import ct_series

pytest.importorskip("mhubio")
yaml = pytest.importorskip("yaml")
MODEL = ROOT / "docs" / "mhub"


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Any:
    """Runs the modules of config/default.yml, as mhub.run does, on the series that lie in input_data."""
    from mhubio.core import Config
    from mhubio.modules.importer.DicomImporter import DicomImporter
    from mhubio.modules.organizer.DataOrganizer import DataOrganizer

    monkeypatch.setattr(sys, "path", [str(MODEL / "utils"), *sys.path])
    from VisceraRunner import VisceraRunner

    program = tmp_path / "viscera"
    python, *rest = command("--weights", tiny_weights)
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{python}" {" ".join(rest)} "$@"\n')
    program.chmod(0o755)
    settings = yaml.safe_load((MODEL / "config" / "default.yml").read_text())
    settings["general"]["data_base_dir"] = str(tmp_path)
    # Sorting is another program's, dicomsort, and tags are read by a function that pydicom 3 has no more.
    settings["modules"]["DicomImporter"] |= {"sort_data": False, "meta": {"mod": "ct"}}
    settings["modules"]["VisceraRunner"]["program"] = str(program)
    modules = {"DicomImporter": DicomImporter, "VisceraRunner": VisceraRunner, "DataOrganizer": DataOrganizer}

    def run() -> None:
        config = Config(config=settings, args=False)
        for name in settings["execute"]:
            modules[name](config).execute()

    return run


@pytest.mark.slow
def test_a_series_becomes_a_seg(pipeline: Any, tmp_path: Path, blob: np.ndarray, capsys: Any) -> None:
    highdicom = pytest.importorskip("highdicom")
    ct_series(tmp_path / "input_data" / "1.2.3", blob)
    (tmp_path / "input_data" / "1.2.4").mkdir()
    (tmp_path / "input_data" / "1.2.4" / "1.dcm").write_bytes(b"nothing")
    (tmp_path / "output_data").mkdir()
    pipeline()
    seg = highdicom.seg.segread(tmp_path / "output_data" / "1.2.3" / "viscera.seg.dcm")
    assert seg.number_of_segments and seg.Modality == "SEG"
    assert os.listdir(tmp_path / "output_data") == ["1.2.3"]  # the other one failed, and is told
    assert "viscera ended with exit code 4 and 0 segmentations" in capsys.readouterr().out


def test_the_segments_are_named_as_segdb_does() -> None:
    from segdb.classes.Segment import Segment

    sys.path.insert(0, str(MODEL / "utils"))
    try:
        from VisceraRunner import ROI
    finally:
        del sys.path[0]
    assert [Segment(name).name.lower() for name in ROI.split(",")] == [one.title for one in TABLE if one.key != "tumor"]


def test_the_dockerfile_is_as_mhub_wants_it() -> None:
    """The rules of .github/scripts/utils.py, validateDockerfile: github.com/MHubAI/models."""
    lines = [line for line in (MODEL / "dockerfiles" / "Dockerfile").read_text().splitlines() if line.strip()]
    assert lines[0] == "FROM mhubai/base:latest"
    assert not [line for line in lines[1:] if line.startswith(("ADD", "COPY", "WORKDIR", "FROM"))]
    assert "ARG MHUB_MODELS_REPO" in lines
    assert "RUN buildutils/import_mhub_model.sh viscera ${MHUB_MODELS_REPO}" in lines
    assert lines[-2:] == ['ENTRYPOINT ["mhub.run"]', 'CMD ["--workflow", "default"]']
