"""An application package of MONAI Deploy (MAP): DICOM in, DICOM SEG out, and the files that describe it.

As github.com/Project-MONAI/monai-deploy, guidelines/monai-application-package.md, version 1.0.0: without a parameter
the application runs and ends; `show` prints the manifests; `extract` copies what is asked for by a mounted folder.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..command import cli
from ..command.console import say, say_error
from ..errors import WRONG_FLAG, OutputError
from .settings import NAMED, flags

# Of the specification; requirements/doors.py writes them to app.json.
ENVIRONMENT = {
    "HOLOSCAN_INPUT_PATH": "/var/holoscan/input/",
    "HOLOSCAN_OUTPUT_PATH": "/var/holoscan/output/",
    "HOLOSCAN_WORKDIR": "/var/holoscan/",
    "HOLOSCAN_APPLICATION": "/opt/holoscan/app/",
    "HOLOSCAN_MODEL_PATH": "/opt/holoscan/models/",
    "HOLOSCAN_CONFIG_PATH": "/var/holoscan/app.yaml",
    "HOLOSCAN_APP_MANIFEST_PATH": "/etc/holoscan/app.json",
    "HOLOSCAN_PKG_MANIFEST_PATH": "/etc/holoscan/pkg.json",
    "HOLOSCAN_DOCS_PATH": "/opt/holoscan/docs/",
    "HOLOSCAN_LOGS_PATH": "/var/holoscan/logs/",
}
MANIFESTS = {"app": "HOLOSCAN_APP_MANIFEST_PATH", "pkg": "HOLOSCAN_PKG_MANIFEST_PATH"}
EXPORT = Path("/var/run/holoscan/export")
# What a host sends on is DICOM: no records beside it.
DEFAULTS = {**NAMED, "--format": "seg", "--no-sidecar": "true"}


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Do what the container was started for; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    variables = ENVIRONMENT | {name: value for name, value in environment.items() if value}
    if not given:
        return segment(variables)
    try:
        if given[0] == "show" and all(name in MANIFESTS for name in given[1:]):
            for name in given[1:] or MANIFESTS:
                say(Path(variables[MANIFESTS[name]]).read_text())
            return 0
        if given == ["extract"]:
            extract(variables, EXPORT)
            return 0
    except shutil.Error as error:
        source, _, why = error.args[0][0]
        say_error(f"{source} cannot be copied: {why}")
        return OutputError.exit_code
    except OSError as error:
        say_error(f"{error.filename}: {error.strerror}")
        return OutputError.exit_code
    say_error("this package runs without arguments, or with: show [app] [pkg], extract")
    return WRONG_FLAG


def segment(variables: Mapping[str, str]) -> int:
    """Run the command on the folders of the variables; those that are relative lie in the working directory."""
    folder = Path(variables["HOLOSCAN_WORKDIR"])
    inputs, outputs = (folder / variables[f"HOLOSCAN_{name}_PATH"] for name in ("INPUT", "OUTPUT"))
    models = folder / variables["HOLOSCAN_MODEL_PATH"]
    weights = [] if _means_own(models) else [f"--weights={models}"]
    try:
        asked = flags(variables, DEFAULTS)
    except ValueError as error:
        say_error(str(error))
        return WRONG_FLAG
    return cli.main([inputs, outputs, *weights, *asked])


def _means_own(models: Path) -> bool:
    """Whether a folder of networks means those of this program: it is empty, or that of a package, outside of one. Any
    other that is not there or is closed is for the command to refuse."""
    try:
        return not any(models.iterdir())
    except OSError:
        return models == Path(ENVIRONMENT["HOLOSCAN_MODEL_PATH"]) and not os.path.lexists(models)


def extract(variables: Mapping[str, str], export: Path) -> None:
    """Copy application, networks, documents and manifests, or those for which a folder is there. Raises OSError."""
    folders = {"app": "HOLOSCAN_APPLICATION", "models": "HOLOSCAN_MODEL_PATH", "docs": "HOLOSCAN_DOCS_PATH"}
    there = [path.name for path in export.iterdir()]
    for part in [part for part in (*folders, "config") if part in there] or (*folders, "config"):
        if part == "config":
            (export / part).mkdir(exist_ok=True)
            for name in MANIFESTS.values():
                shutil.copy(variables[name], export / part)
        else:
            shutil.copytree(variables[folders[part]], export / part, dirs_exist_ok=True)


if __name__ == "__main__":
    raise SystemExit(main())
