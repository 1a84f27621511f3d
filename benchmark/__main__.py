"""Measure, score, compare and report: `python -m benchmark run --cases DIR --out runs.json`, ...

What is measured goes to JSON that schema.json beside this file describes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark.peers import PEERS
from benchmark.run import FORMAT, VERSION, measure, write
from inference.errors import VisceraError
from inference.labels import TABLE
from inference.options import WEIGHTS

ENDING = ".nii.gz"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every case and print one line for each."""
    document = measure(
        options.cases,
        options.runner,
        options.image,
        options.repeat,
        options.flags.split(),
        options.out,
        options.resume,
    )
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
    from benchmark.scoring import read_pair, score_case  # SciPy, which a measuring run must not wait for

    references = sorted(options.ref.glob(f"*{ENDING}"))
    if not references:
        raise ValueError(f"{options.ref} holds no X{ENDING}")
    missing = [path.name for path in references if not (options.pred / path.name).is_file()]
    if missing:
        raise ValueError(f"{options.pred} lacks {', '.join(missing)}")
    scores = {}
    for path in references:
        found, wanted, spacing = read_pair(options.pred / path.name, path)
        case = score_case(found, wanted, spacing, [one.value for one in TABLE])
        scores[path.name.removesuffix(ENDING)] = {str(label): vars(value) for label, value in case.items()}
    means: dict[str, Any] = {}
    for structure in TABLE:
        label = str(structure.value)
        known = [case[label] for case in scores.values() if case[label]["dsc"] is not None]
        mean = {key: statistics.fmean(one[key] for one in known) if known else None for key in ("dsc", "nsd")}
        means[label] = mean
        print(f"{structure.title}: " + ", ".join(f"{key.upper()} {value}" for key, value in mean.items()))
    return {"format": FORMAT, "version": VERSION, "scores": scores, "means": means}


def report(options: argparse.Namespace) -> None:
    """Write the report of runs, and of scores where there are any, to a folder."""
    from benchmark.report import build  # matplotlib, which a measuring run must not wait for

    scores = _read(options.scores, "scores") if options.scores else None
    build(_read(options.runs, "runs"), scores, options.out)
    print(f"{options.out / 'index.html'}")


def scaling(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the sizes of Table 5 made from one scan, and fit how time and memory grow."""
    from benchmark.scaling import growth, make_sizes

    with tempfile.TemporaryDirectory(prefix="viscera-scaling-") as temporary:
        make_sizes(options.scan, Path(temporary))
        options.cases = Path(temporary)
        document = run(options)
    document["growth"] = growth(document)
    for name, (base, slope) in document["growth"].items():
        print(f"{name}: {base:.2f} + {slope:.4f} a slice")
    return document


def versus(options: argparse.Namespace) -> dict[str, Any]:
    """Measure ours and a peer in turn and print a line for each case."""
    from benchmark.versus import summary
    from benchmark.versus import versus as pairs

    document = pairs(
        options.cases,
        options.peer,
        options.weights,
        options.models,
        options.device,
        options.pairs,
        options.flags.split(),
        options.out,
    )
    print(document["settings"])
    print("\n".join(summary(document)))
    return document


def compare(options: argparse.Namespace) -> None:
    """Print how the new runs differ from the old ones. Raises ValueError where a case is slower or takes more."""
    from benchmark.comparison import changes

    found = changes(_read(options.old, "runs"), _read(options.new, "runs"))
    for one in found:
        print(f"{one.case}: {one.figure} {one.old:.2f} -> {one.new:.2f}, {one.ratio:.3f} times: {one.verdict}")
    worse = [f"{one.case} ({one.figure} {one.ratio:.2f} times)" for one in found if one.verdict == "worse"]
    if worse:
        raise ValueError(f"worse beyond the spread of both: {', '.join(worse)}")


def _read(path: Path, kind: str) -> dict[str, Any]:
    """A JSON file of this program. Raises ValueError where it is another file."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if document.get("format") != FORMAT or document.get("version") != VERSION or kind not in document:
        raise ValueError(f"{path} holds no {kind} of {FORMAT} version {VERSION}")
    return document


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__.split("\n\n")[0])
    programs = parser.add_subparsers(required=True, metavar="PROGRAM")
    measured = argparse.ArgumentParser(add_help=False)
    measured.add_argument("--runner", choices=("process", "docker"), default="process")
    measured.add_argument("--image", default="viscera", help="for the runner docker")
    measured.add_argument("--repeat", type=int, default=3, help="rounds over all cases")
    measured.add_argument("--resume", action="store_true", help="keep what --out holds and go on behind it")
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--flags", default="", help="of python -m inference, such as '--plan dense'")
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument("--out", type=Path, required=True, help="JSON file")

    one = programs.add_parser(
        "run", parents=[measured, flags, out], help="time and memory of every case, each in a start of its own"
    )
    one.add_argument("--cases", type=Path, required=True, help="folder of X_0000.nii.gz")
    one.set_defaults(program=run)
    one = programs.add_parser(
        "scaling",
        parents=[measured, flags, out],
        help="the same for the sizes of the paper's Table 5, made from one scan",
    )
    one.add_argument("--scan", type=Path, required=True)
    one.set_defaults(program=scaling)
    one = programs.add_parser("score", parents=[out], help="DSC and NSD as FLARE 2023 scores them")
    one.add_argument("--pred", type=Path, required=True)
    one.add_argument("--ref", type=Path, required=True)
    one.set_defaults(program=score)
    one = programs.add_parser("versus", parents=[flags, out], help="ours and a peer in turn, with the same networks")
    one.add_argument("--peer", choices=PEERS, required=True)
    one.add_argument("--cases", type=Path, required=True, help="folder of X_0000.nii.gz")
    one.add_argument("--pairs", type=int, default=3)
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--weights", type=Path, default=WEIGHTS)
    one.add_argument("--models", type=Path, nargs="+", default=[], help="nnU-Net result folders of the same networks")
    one.set_defaults(program=versus)
    one = programs.add_parser("report", help="Markdown and an HTML page of runs and scores")
    one.add_argument("runs", type=Path)
    one.add_argument("scores", type=Path, nargs="?")
    one.add_argument("--out", type=Path, required=True, help="folder")
    one.set_defaults(program=report)
    one = programs.add_parser(
        "compare", help="two results of run: exit code 1 where the new one is worse beyond the spread of both"
    )
    one.add_argument("old", type=Path)
    one.add_argument("new", type=Path)
    one.set_defaults(program=compare)
    options = parser.parse_args()
    try:
        document = options.program(options)
        if document is not None:
            write(document, options.out)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd))} failed")
    except (VisceraError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
