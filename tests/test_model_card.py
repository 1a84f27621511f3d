"""The model card as data: what is made of card.json and of weights/README.md for other programs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import inference
from tests.conftest import ROOT

yaml = pytest.importorskip("yaml")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "requirements/model_card.py", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False, cwd=root)


def front_matter(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / "weights" / "README.md").read_text().split("---\n")[1])
    return document


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that it is made of."""
    for name in (
        "requirements/model_card.py",
        "weights/README.md",
        "weights/unified/card.json",
        "inference/version.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_front_matter_is_up_to_date() -> None:
    assert run(ROOT, "--check").returncode == 0, "make card"


def test_it_holds_what_the_card_says() -> None:
    found = front_matter(ROOT)
    assert found["license"] == "apache-2.0" and found["pipeline_tag"] == "image-segmentation"
    (model,) = found["model-index"]
    (result,) = model["results"]
    card = json.loads((ROOT / "weights" / "unified" / "card.json").read_text())
    labels = {label["name"].replace("_", " ").replace("tumor", "tumour") for label in card["labels"] if label["value"]}
    assert {metric["name"].removeprefix("DSC ") for metric in result["metrics"] if metric["type"] == "dsc"} == (
        labels | {"mean of organs"}
    )
    assert all(0 <= metric["value"] <= 100 for metric in result["metrics"])
    assert all(patient in card["trained_on"] for patient in result["dataset"]["name"].split(": ")[1].split(", "))


def test_other_scores_make_it_out_of_date(copy: Path) -> None:
    readme = copy / "weights" / "README.md"
    text = readme.read_text()
    (row,) = re.findall(r"^\| liver .*\|$", text, re.MULTILINE)
    readme.write_text(text.replace(row, re.sub(r"[\d.]+ / [\d.]+ \|$", "12.3 / 45.6 |", row)))
    assert run(copy, "--check").returncode == 1
    assert run(copy).returncode == 0
    metrics = front_matter(copy)["model-index"][0]["results"][0]["metrics"]
    assert [metric["value"] for metric in metrics if metric["name"].endswith(" liver")] == [12.3, 45.6]
    assert run(copy, "--check").returncode == 0
    assert (
        readme.read_text().split("---\n", 2)[2].split("\n| liver")[0] == text.split("---\n", 2)[2].split("\n| liver")[0]
    )


def test_a_card_without_a_heading_is_a_mistake(copy: Path) -> None:
    """Of the component, whose considerations are those of the card."""
    readme = copy / "weights" / "README.md"
    readme.write_text(readme.read_text().replace("## Bias\n", "## Prejudice\n"))
    program = [sys.executable, "-c", "import model_card; model_card.component('unified')"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=copy / "requirements")
    assert "KeyError: 'Bias'" in done.stderr


def test_the_component_of_an_image_names_the_files_by_their_digests() -> None:
    program = [
        sys.executable,
        "-B",
        "-c",
        "import json, model_card; print(json.dumps(model_card.component('unified')))",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT / "requirements")
    found = json.loads(done.stdout)
    assert found["type"] == "machine-learning-model" and found["version"] == inference.__version__
    for part in found["components"]:
        assert part["hashes"][0]["content"] == hashlib.sha256((ROOT / part["name"]).read_bytes()).hexdigest()
    card = found["modelCard"]
    assert len(card["quantitativeAnalysis"]["performanceMetrics"]) == 30
    assert any("HCC-TACE-Seg" in one["name"] for one in card["modelParameters"]["datasets"])
    assert all(one["mitigationStrategy"] for one in card["considerations"]["ethicalConsiderations"])


def test_the_labels_of_an_image() -> None:
    parts = run(ROOT, "labels").stdout.split("\0")
    labels = dict(part.split("=", 1) for part in parts[1::2])
    assert set(parts[:-1:2]) == {"--label"} and parts[-1] == ""
    assert labels["org.opencontainers.image.version"] == inference.__version__
    assert labels["org.opencontainers.image.base.name"] == "debian:12-slim"
    if (ROOT / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
