"""Measure, score, compare and report: `python -m benchmark PROGRAM ...`

Each program is a module of this folder with `add_arguments` and `run`. What is measured goes to JSON that schema.json
beside this file describes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

from inference.errors import VisceraError

PROGRAMS = {
    "run": "time and memory of every case, each in a separate process",
    "scaling": "the same for the sizes of the paper's Table 5, made from one scan",
    "report": "Markdown and an HTML page of runs and scores",
    "compare": "two results of run: exit code 1 if the new one is worse beyond the spread of both",
    "versus": "Viscera and a peer in turn, with the same networks",
    "parity": "Viscera's labels beside nnU-Net's own, from one checkpoint",
    "variants": "what precision, windows and plan do to labels and time",
    "score": "DSC and NSD, as FLARE 2023 scores them, of existing label maps",
    "evaluate": "segment labelled scans and score the result",
    "cluster": "how many workers one scheduler keeps busy, with workers that sleep",
    "floors": "how fast the networks could be on this machine at best",
    "picture": "label maps over their scan",
    "torso": "a synthetic scan for tests",
    "gpu-kit": "what a bare machine with a GPU needs for gpu",
    "gpu": "measure a machine with a GPU, in stages",
}


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__.split("\n\n")[0])
    programs = parser.add_subparsers(required=True, metavar="PROGRAM")
    for name, summary in PROGRAMS.items():
        chosen = name in arguments[:1]  # the others are not imported: a measuring run must not wait for them
        module = import_module(f"benchmark.{name.replace('-', '_')}") if chosen else None
        one = programs.add_parser(
            name,
            help=summary,
            description=module.__doc__ if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(one)
            one.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd))} failed")
    except (VisceraError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def old_name(module: str) -> None:
    """What `python -m benchmark.MODULE` does until 0.3: say its new name, and run it."""
    program = module.replace("_", "-")
    print(f"python -m benchmark.{module} is now python -m benchmark {program}", file=sys.stderr)
    main([program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
