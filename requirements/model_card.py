"""The model card as data: what weights/NAME/card.json and the text and tables of weights/README.md say, for programs.

    python3 requirements/model_card.py            # write the front matter of weights/README.md anew
    python3 requirements/model_card.py --check    # exit code 1 if it is not up to date
    python3 requirements/model_card.py labels     # OCI labels, as arguments of docker build, each ended by a NUL

sbom.py takes its component of an image's networks from here. Standard library only: the image's own Python runs it.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / "weights").is_dir() else HERE.parent  # in an image all lies in one folder
CARD = ROOT / "weights" / "README.md"
LICENCE = "Apache-2.0"
TITLE = "Viscera"
TASK = "image-segmentation"
BEGIN = "# Made by requirements/model_card.py from card.json and the tables below: change those, then run it.\n"


def networks() -> dict[str, dict]:
    """Name -> card.json."""
    return {path.parent.name: json.loads(path.read_bytes()) for path in sorted((ROOT / "weights").glob("*/card.json"))}


def version() -> str:
    text = (ROOT / "inference" / "version.py").read_text()
    return re.search(r'__version__ = "(.*)"', text)[1]


def body() -> str:
    """weights/README.md without its front matter."""
    return re.sub(r"\A---\n.*?\n---\n+", "", CARD.read_text(), flags=re.DOTALL)


def section(heading: str) -> str:
    """The text below a heading, up to the next one. A card that lacks it is a mistake: KeyError."""
    parts = re.split(r"^#+ (.*)\n", body(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def table(text: str) -> list[dict[str, str]]:
    """The rows of the first table, by the names of its columns."""
    lines = next(part for part in text.split("\n\n") if part.startswith("|")).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def plain(text: str) -> str:
    """Markdown without its marks, in one line."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[*`]", "", text).split())


def points(heading: str) -> list[str]:
    """The points of a list, or the paragraphs where there is none."""
    text = section(heading).strip()
    found = re.findall(r"^- (.*)", text, re.MULTILINE) or [one for one in text.split("\n\n") if one[0] not in "|!"]
    return [plain(one) for one in found]


def scores() -> list[tuple[str, float, float]]:
    """Label, mean DSC and mean NSD in per cent of the patients that no training has seen."""
    found = []
    for row in table(section("How well it works")):
        if values := re.fullmatch(r"([\d.]+) / ([\d.]+)", row["mean"]):
            found.append((row["label"], float(values[1]), float(values[2])))
    return found


def patients() -> list[str]:
    return [column for column in table(section("How well it works"))[0] if column not in ("label", "mean")]


def data() -> list[dict[str, str]]:
    """What was trained on: the rows of the table of data."""
    return table(section("Data"))


def front_matter() -> str:
    """As Hugging Face has it (huggingface.co/docs/hub/model-cards), `---` and all. A line of YAML may be JSON."""
    metrics = [
        {"type": kind, "name": f"{kind.upper()} {label}", "value": value}
        for label, dsc, nsd in scores()
        for kind, value in (("dsc", dsc), ("nsd", nsd))
    ]
    source = {
        "type": "viscera-validation",
        "name": f"Patients not used for training: {', '.join(patients())}",
        "split": "validation",
    }
    lines = [
        f"license: {LICENCE.lower()}",
        f"library_name: {TITLE.lower()}",
        f"pipeline_tag: {TASK}",
        "tags: [medical, ct, abdomen, segmentation, nnunet, onnx, openvino]",
        "metrics: [dsc, nsd]",
        "model-index:",
    ]
    for name in networks():
        lines += [
            f"- name: {TITLE.lower()}-{name}",
            "  results:",
            f"  - task: {json.dumps({'type': TASK, 'name': 'Abdominal organs and tumours in CT'})}",
            f"    dataset: {json.dumps(source)}",
            "    metrics:",
            *(f"    - {json.dumps(one)}" for one in metrics),
        ]
    return "---\n" + BEGIN + "".join(f"{line}\n" for line in lines) + "---\n"


def component(name: str) -> dict:
    """A network as CycloneDX has it (cyclonedx.org/docs/1.6/json: modelCard)."""
    card = networks()[name]
    digest = hashlib.sha256((ROOT / "weights" / name / "card.json").read_bytes()).hexdigest()
    spacing = " x ".join(f"{mm:g}" for mm in card["spacing"])
    labels = [label["name"] for label in card["labels"] if label["value"]]
    row = next(row for row in table(body()) if row["folder"] == f"`{name}`")
    return {
        "type": "machine-learning-model",
        "bom-ref": f"network/{name}",
        "name": f"{TITLE.lower()}-{name}",
        "version": version(),
        "description": card["trained_on"],
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"license": {"id": LICENCE}}],
        "components": [
            {"type": "file", "name": f"weights/{name}/{file}", "hashes": [{"alg": "SHA-256", "content": sha256}]}
            for file, sha256 in card["files"].items()
        ],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": TASK,
                "architectureFamily": "convolutional neural network",
                "modelArchitecture": plain(row["network"]),
                "datasets": [
                    {
                        "type": "dataset",
                        "name": plain(one["from"]),
                        "description": f"patients: {one['patients'] or 0}; scans: {one['scans'] or 0}; "
                        f"licence: {one['licence'].replace(' *', ' as the archive states it')}",
                    }
                    for one in data()
                ],
                "inputs": [{"format": f"CT in HU, resampled to {spacing} mm (z, y, x)"}],
                "outputs": [{"format": f"label map: {', '.join(labels)}"}],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    {"type": kind, "value": f"{value:g}", "slice": label}
                    for label, dsc, nsd in scores()
                    for kind, value in (("DSC, %", dsc), ("NSD, %", nsd))
                ]
            },
            "considerations": {
                "useCases": [plain(body().split("\n\n")[1])],
                "technicalLimitations": points("Failure modes") + points("Tumours"),
                "ethicalConsiderations": [
                    {"name": heading, "mitigationStrategy": " ".join(points(heading))}
                    for heading in ("Bias", "Privacy", "Safety and security")
                ],
            },
        },
    }


def labels() -> dict[str, str]:
    """OCI's annotations (github.com/opencontainers/image-spec, annotations.md) that change from commit to commit."""
    found = {
        "version": version(),
        "revision": said("git", "rev-parse", "HEAD"),
        "created": said("git", "log", "-1", "--format=%cI"),
        "base.name": re.search(r"^ARG BASE_IMAGE=(.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1],
    }
    base = found["base.name"]
    found["base.digest"] = said("docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", base).split("@")[
        -1
    ]
    if (address := said("git", "config", "--get", "remote.origin.url")).startswith("https://"):
        found |= {"url": address, "source": address, "documentation": f"{address.removesuffix('.git')}#readme"}
    return {f"org.opencontainers.image.{key}": value for key, value in found.items() if value}


def said(*command: str) -> str:
    """What a program prints; nothing where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()


def main(arguments: list[str]) -> int:
    if arguments == ["labels"]:
        print(end="".join(f"--label\0{key}={value}\0" for key, value in labels().items()))
        return 0
    whole = f"{front_matter()}\n{body()}"
    if arguments == ["--check"]:
        return int(whole != CARD.read_text())
    CARD.write_text(whole)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
