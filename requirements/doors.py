"""What platforms want to know of an image, made of the command's own parser (inference/doors/settings.py).

    python3 requirements/doors.py map FOLDER    # app.json and pkg.json of MONAI Deploy
    python3 requirements/doors.py kaapana       # processing-container.json, on standard output
    python3 requirements/doors.py xnat [IMAGE]  # the command of XNAT's container service, on standard output
    python3 requirements/doors.py               # write that into the Dockerfile anew, as a label, and the version
    python3 requirements/doors.py --check       # exit code 1 if it is not up to date

Standard library only: the image's own Python runs it while the image is built.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / "inference").is_dir() else HERE.parent  # in an image all lies in one folder
sys.path.insert(0, str(ROOT))

from inference.command.cli import DESCRIPTION  # noqa: E402
from inference.doors import kaapana, monai_deploy  # noqa: E402
from inference.doors.settings import NAMED, Setting, settings  # noqa: E402
from inference.version import __version__  # noqa: E402

DOCKERFILE = ROOT / "Dockerfile"
NAME = "viscera"
MEMORY = 3  # GiB: twice what the largest scan of README takes; the program keeps to the limit that it is given


def app_json() -> dict:
    """As MONAI's specification has it, and holoscan-cli, whose names for formats differ, writes it."""
    defaults = {
        one.variable: one.default for one in settings(monai_deploy.DEFAULTS) if one.flag in monai_deploy.DEFAULTS
    }
    return {
        "apiVersion": "1.0.0",
        "type": "application",
        "command": json.dumps(["python3", "-m", monai_deploy.__name__]),  # JSON in a string, as in all packages
        "environment": monai_deploy.ENVIRONMENT | defaults,
        "input": {
            "path": monai_deploy.ENVIRONMENT["HOLOSCAN_INPUT_PATH"],
            "formats": [{"data": "file", "type": "dicom"}],
        },
        "output": {
            "path": monai_deploy.ENVIRONMENT["HOLOSCAN_OUTPUT_PATH"],
            "format": {"data": "file", "type": "dicom"},
            "formats": [{"data": "file", "type": "dicom"}],
        },
        "liveness": None,
        "readiness": None,
        "timeout": 0,
        "version": __version__,
        "workingDirectory": monai_deploy.ENVIRONMENT["HOLOSCAN_WORKDIR"],
    }


def pkg_json() -> dict:
    networks = sorted(path.parent.name for path in (ROOT / "weights").glob("*/card.json"))
    return {
        "apiVersion": "1.0.0",
        "applicationRoot": monai_deploy.ENVIRONMENT["HOLOSCAN_APPLICATION"],
        "modelRoot": monai_deploy.ENVIRONMENT["HOLOSCAN_MODEL_PATH"],
        "models": [{"name": name, "path": name} for name in networks],
        "resources": {"cpu": 2, "gpu": 0, "memory": f"{MEMORY}Gi", "sharedMemory": "64Mi"},
        "version": __version__,
    }


def processing_container() -> dict:
    """As Kaapana's task API reads it: lib/task_api/task_api/processing_container/pc_models.py, api_version 1."""
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "api_version": 1,
        "templates": [
            {
                "identifier": "segment",
                "description": "Segments every item of CT and writes a DICOM SEG, or what VISCERA_FORMAT names.",
                "inputs": [
                    {
                        "name": "dicom",
                        "mounted_path": str(kaapana.INPUTS),
                        "description": "A folder for each item, with the slices of a CT series",
                    }
                ],
                "outputs": [
                    {
                        "name": "segmentations",
                        "mounted_path": str(kaapana.OUTPUTS),
                        "description": "A folder of the same name for each item, with UID.seg.dcm and a record",
                    }
                ],
                "env": [_variable(one) for one in settings(kaapana.DEFAULTS)],
                "command": ["python3", "-m", kaapana.__name__],
                "resources": {"limits": {"memory": f"{MEMORY}Gi"}, "requests": {"memory": f"{MEMORY}Gi"}},
            }
        ],
    }


def _variable(one: Setting) -> dict:
    found = {"name": one.variable, "value": one.default, "description": one.help, "adjustable": True}
    found["type"] = "boolean" if one.is_switch else "string"
    if one.choices and not one.is_switch:
        found["choices"] = list(one.choices)
    return found


def xnat_command() -> dict:
    """As XNAT reads it: github.com/NrgXnat/container-service, model/command/auto/Command.java."""
    inputs = [_input(one) for one in settings({**NAMED, "--format": "nifti,seg"})]
    line = "sh predict.sh " + " ".join(f"#{one['name']}#" for one in inputs)
    return {
        "name": NAME,
        "label": "Viscera",
        "description": DESCRIPTION,
        "version": __version__,
        "schema-version": "1.0",
        "type": "docker",
        "working-directory": "/workspace",
        "command-line": line,
        "override-entrypoint": False,
        "mounts": [
            {"name": "in", "path": "/inputs", "writable": False},
            {"name": "out", "path": "/outputs", "writable": True},
        ],
        "inputs": inputs,
        "outputs": [
            {"name": "segmentations", "description": "Label maps and records", "required": True, "mount": "out"}
        ],
        "xnat": [
            {
                "name": f"{NAME}-scan",
                "label": "Segment this CT",
                "description": "Segments the DICOM of a CT scan",
                "contexts": ["xnat:ctScanData"],
                "external-inputs": [
                    {"name": "scan", "type": "Scan", "required": True, "matcher": "'DICOM' in @.resources[*].label"}
                ],
                "derived-inputs": [
                    {
                        "name": "scan-dicom",
                        "type": "Resource",
                        "required": True,
                        "matcher": "@.label == 'DICOM'",
                        "derived-from-wrapper-input": "scan",
                        "provides-files-for-command-mount": "in",
                    }
                ],
                "output-handlers": [
                    {
                        "name": "to-scan",
                        "accepts-command-output": "segmentations",
                        "as-a-child-of": "scan",
                        "type": "Resource",
                        "label": "VISCERA",
                    }
                ],
            },
        ],
    }


def _input(one: Setting) -> dict:
    found = {"name": one.name, "description": one.help, "required": False}
    if one.is_switch:
        return found | {"type": "boolean", "default-value": one.default, "true-value": one.flag, "false-value": ""}
    found |= {"command-line-flag": one.flag, "command-line-separator": "="}
    found |= {"default-value": one.default} if one.default else {}
    return found | ({"type": "select-one", "select-values": list(one.choices)} if one.choices else {"type": "string"})


def dockerfile() -> str:
    """The Dockerfile with these labels as they have to be."""
    text = DOCKERFILE.read_text()
    commands = json.dumps([xnat_command()], separators=(",", ":"))
    for key, value in (("org.nrg.commands", commands), ("org.opencontainers.image.version", __version__)):
        quoted = re.sub(r'[\\"$]', lambda found: "\\" + found[0], value)
        line = f'LABEL {key}="{quoted}"'
        text, count = re.subn(rf"^LABEL {re.escape(key)}=.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        assert count == 1, f"the Dockerfile has no line LABEL {key}"
    return text


def main(arguments: list[str]) -> int:
    match arguments:
        case ["map", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, document in (("app.json", app_json()), ("pkg.json", pkg_json())):
                (Path(folder) / name).write_text(json.dumps(document, indent=2) + "\n")
        case ["kaapana"]:
            print(json.dumps(processing_container(), indent=2))
        case ["xnat"] | ["xnat", _]:  # a label names no image: XNAT knows which one it reads
            image = {"image": arguments[1]} if arguments[1:] else {}
            print(json.dumps(xnat_command() | image, indent=2))
        case []:
            DOCKERFILE.write_text(dockerfile())
        case ["--check"]:
            return int(dockerfile() != DOCKERFILE.read_text())
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
