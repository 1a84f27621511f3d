"""DSC and NSD as FLARE 2023 scores them, of label maps with the names of their references."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmark.document import FORMAT, VERSION, write
from benchmark.scoring import read_pair, score_case
from inference.labels import TABLE
from inference.names import case_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pred", type=Path, required=True, help="folder of X.nii.gz")
    parser.add_argument("--ref", type=Path, required=True, help="folder of X.nii.gz")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")


def run(options: argparse.Namespace) -> None:
    """DSC and NSD of every reference's label map. Raises ValueError where one is missing or on another grid."""
    references = sorted(options.ref.glob("*.nii.gz"))
    if not references:
        raise ValueError(f"{options.ref} holds no X.nii.gz")
    missing = [path.name for path in references if not (options.pred / path.name).is_file()]
    if missing:
        raise ValueError(f"{options.pred} lacks {', '.join(missing)}")
    scores = {}
    for path in references:
        found, wanted, spacing = read_pair(options.pred / path.name, path)
        case = score_case(found, wanted, spacing, [one.value for one in TABLE])
        scores[case_of(path.name)] = {str(label): vars(value) for label, value in case.items()}
    means: dict[str, Any] = {}
    for structure in TABLE:
        label = str(structure.value)
        known = [case[label] for case in scores.values() if case[label]["dsc"] is not None]
        mean = {key: statistics.fmean(one[key] for one in known) if known else None for key in ("dsc", "nsd")}
        means[label] = mean
        print(f"{structure.title}: " + ", ".join(f"{key.upper()} {value}" for key, value in mean.items()))
    write({"format": FORMAT, "version": VERSION, "scores": scores, "means": means}, options.out)
