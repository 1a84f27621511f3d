"""Measure and score: `python -m benchmark run --cases DIR --out runs.json`, `python -m benchmark score ...`.

Both write JSON that schema.json beside this file describes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmark.run import FORMAT, VERSION, measure
from inference.errors import VisceraError

ENDING = ".nii.gz"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every case and print one line for each."""
    document = measure(options.cases, options.runner, options.image, options.repeat, options.flags.split())
    by_case: dict[str, list[dict[str, Any]]] = {}
    for one in document["runs"]:
        by_case.setdefault(one["case"], []).append(one)
    for case, runs in by_case.items():
        walls = [one["wall_s"] for one in runs]
        spread = f"{min(walls):.2f} {statistics.median(walls):.2f} {max(walls):.2f}"
        most = max(one["host_memory"]["max_mb"] for one in runs)
        print(f"{case}: wall s (least, median, most) {spread}; host memory at most {most:.0f} MB", end="")
        gpu = [one["gpu_memory"] for one in runs if one["gpu_memory"]]
        if gpu:
            area = statistics.median(one["flare_area_mb_s"] for one in gpu)
            print(f"; GPU at most {max(one['max_mb'] for one in gpu):.0f} MB, FLARE's area {area:.0f} MB*s", end="")
        failed = [one["error"] for one in runs if one["exit_code"]]
        print(f"; FAILED: {failed[0]}" if failed else "")
    if document["runs"] and not document["runs"][0]["samples"].get("gpu"):
        print(f"no GPU memory: {document['runs'][0]['samples']['gpu_absent']}")
    return document


def score(options: argparse.Namespace) -> dict[str, Any]:
    """DSC and NSD of every reference's label map. Raises ValueError where one is missing or on another grid."""
    from benchmark.scoring import LABELS, read_pair, score_case  # SciPy, which a measuring run must not wait for

    references = sorted(options.ref.glob(f"*{ENDING}"))
    if not references:
        raise ValueError(f"{options.ref} holds no X{ENDING}")
    missing = [path.name for path in references if not (options.pred / path.name).is_file()]
    if missing:
        raise ValueError(f"{options.pred} lacks {', '.join(missing)}")
    scores = {}
    for path in references:
        found, wanted, spacing = read_pair(options.pred / path.name, path)
        case = score_case(found, wanted, spacing, sorted(LABELS))
        scores[path.name.removesuffix(ENDING)] = {str(label): vars(value) for label, value in case.items()}
    means: dict[str, Any] = {}
    for label, (name, _) in LABELS.items():
        known = [case[str(label)] for case in scores.values() if case[str(label)]["dsc"] is not None]
        mean = {key: statistics.fmean(one[key] for one in known) if known else None for key in ("dsc", "nsd")}
        means[str(label)] = mean
        print(f"{name}: " + ", ".join(f"{key.upper()} {value}" for key, value in mean.items()))
    return {"format": FORMAT, "version": VERSION, "scores": scores, "means": means}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__.split("\n\n")[0])
    programs = parser.add_subparsers(required=True, metavar="PROGRAM")
    one = programs.add_parser("run", help="time and memory of every case, each in a start of its own")
    one.add_argument("--cases", type=Path, required=True, help="folder of X_0000.nii.gz")
    one.add_argument("--runner", choices=("process", "docker"), default="process")
    one.add_argument("--image", default="viscera", help="for the runner docker")
    one.add_argument("--repeat", type=int, default=3)
    one.add_argument("--flags", default="", help="of python -m inference, such as '--plan dense'")
    one.set_defaults(program=run)
    one = programs.add_parser("score", help="DSC and NSD as FLARE 2023 scores them")
    one.add_argument("--pred", type=Path, required=True)
    one.add_argument("--ref", type=Path, required=True)
    one.set_defaults(program=score)
    for one in programs.choices.values():
        one.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    try:
        document = options.program(options)
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    except (VisceraError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
