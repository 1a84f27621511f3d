"""A processing container of Kaapana: every item of a batch through the command, each into a folder of its own.

Its documents (github.com/kaapana/kaapana, docs/source/development_guide/processing_container_dev_guide.rst) know two
layouts. The task API mounts one folder of items for each channel, and results lie in a folder of the item's name; older
operators have items in WORKFLOW_DIR/BATCH_NAME, each with a folder OPERATOR_IN_DIR and one OPERATOR_OUT_DIR.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..command import cli
from ..command.console import say_error
from ..errors import ALL_FAILED, SOME_FAILED, WRONG_FLAG, InputFolderError, NoInputError, VisceraError, shown
from .settings import NAMED, flags

# Of the channels; requirements/doors.py writes them to processing-container.json.
INPUTS, OUTPUTS = Path("/kaapana/dicom"), Path("/kaapana/segmentations")
OLDER = ("WORKFLOW_DIR", "BATCH_NAME", "OPERATOR_IN_DIR", "OPERATOR_OUT_DIR")
DEFAULTS = {**NAMED, "--format": "seg"}


def main(environment: Mapping[str, str] = os.environ, inputs: Path = INPUTS, outputs: Path = OUTPUTS) -> int:
    """Segment all items; returns the exit code. One that fails stops no other."""
    try:
        asked = flags(environment, DEFAULTS)
        codes = []
        for source, target in items(environment, inputs, outputs):
            codes.append(cli.main([source, target, *asked]))
            if codes[-1] > 128:  # a signal meant all of them
                return codes[-1]
    except VisceraError as error:
        say_error(str(error))
        return error.exit_code
    except ValueError as error:
        say_error(str(error))
        return WRONG_FLAG
    return together(codes)


def together(codes: Sequence[int]) -> int:
    """The exit code of several runs as one."""
    if len(set(codes)) == 1:
        return codes[0]
    return SOME_FAILED if {0, SOME_FAILED} & set(codes) else ALL_FAILED


def items(environment: Mapping[str, str], inputs: Path, outputs: Path) -> Iterator[tuple[Path, Path]]:
    """Folder of the input and folder of the output of each. Raises InputFolderError, NoInputError."""
    older = all(environment.get(name) for name in OLDER)
    if older:
        workflow, batch, into, out = (environment[name] for name in OLDER)
        inputs = Path(workflow) / batch
    try:
        folders = sorted(one for one in inputs.iterdir() if one.is_dir())
    except OSError as error:
        raise InputFolderError(f"{shown(inputs)} cannot be opened: {error.strerror}") from error
    if not folders:
        raise NoInputError(f"{shown(inputs)} holds no item: a folder for each is needed")
    for folder in folders:
        yield (folder / into, folder / out) if older else (folder, outputs / folder.name)


if __name__ == "__main__":
    raise SystemExit(main())
