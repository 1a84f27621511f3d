"""Segment labelled scans and score the result: `python -m benchmark evaluate WEIGHTS SCANS... --references DIR`.

Prints DSC and NSD as FLARE 2023 computes them, per scan and label, and their means. A reference may know fewer
labels than the network: only those that it holds are scored, and `--labels` names others that it would hold had
they been in view. Scores of scans that the network was trained on say nothing: leave those out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.process import start
from benchmark.run import add_flags
from benchmark.scoring import Score, read_pair, score_case
from inference.labels import BY_VALUE, ORGANS, TABLE
from inference.names import case_of, labels_file


def evaluate(
    weights: Path, scans: list[Path], references: Path, labels: list[int], flags: list[str]
) -> dict[str, dict[int, Score]]:
    """Scores by case and label. Raises CalledProcessError where inference fails, ValueError for a wrong grid."""
    scores = {}
    with tempfile.TemporaryDirectory(prefix="viscera-evaluate-") as temporary:
        for scan in scans:
            start(scan, temporary, "--weights", weights, *flags)
            case = case_of(scan.name)
            found, wanted, spacing = read_pair(labels_file(Path(temporary), case), labels_file(references, case))
            held = {int(value) for value in np.unique(wanted)} & BY_VALUE.keys()
            scores[case] = score_case(found, wanted, spacing, sorted(held | set(labels)))
    return scores


def means(scores: dict[str, dict[int, Score]]) -> dict[int, Score]:
    """Mean of each label over the cases that score it."""
    result = {}
    for label in BY_VALUE:
        found = [case[label] for case in scores.values() if label in case and case[label].dsc is not None]
        if found:
            result[label] = _mean(found)
    return result


def of_organs(scores: dict[int, Score]) -> Score:
    """Mean over the organs of one case, or of the means of several."""
    return _mean([scores[organ.value] for organ in ORGANS if organ.value in scores])


def _mean(scores: list[Score]) -> Score:
    """None where no score is known."""
    dsc = [score.dsc for score in scores if score.dsc is not None]
    nsd = [score.nsd for score in scores if score.nsd is not None]
    return Score(float(np.mean(dsc)) if dsc else None, float(np.mean(nsd)) if nsd else None)


def table(scores: dict[str, dict[int, Score]]) -> str:
    """A Markdown table: one row a label, DSC / NSD in per cent, one column a case, and the mean."""

    def cell(score: Score | None) -> str:
        if score is None or score.dsc is None or score.nsd is None:
            return ""
        return f"{100 * score.dsc:.1f} / {100 * score.nsd:.1f}"

    mean = means(scores)
    rows = [["label", *scores, "mean"], ["---"] * (len(scores) + 2)]
    for one in TABLE:
        if one.value in mean:
            rows.append([one.title, *(cell(case.get(one.value)) for case in scores.values()), cell(mean[one.value])])
    rows.append(["mean of organs", *(cell(of_organs(case)) for case in scores.values()), cell(of_organs(mean))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--references", type=Path, required=True, help="folder with X.nii.gz for X_0000.nii.gz")
    parser.add_argument("--labels", default="", help="score these labels too, such as 7,8")
    parser.add_argument("--out", type=Path, help="JSON file for the scores")
    add_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Print the table of scores."""
    labels = [int(label) for label in options.labels.split(",") if label]
    scores = evaluate(options.weights, options.scans, options.references, labels, options.flags)
    print(table(scores))
    if options.out:
        plain: dict[str, Any] = {
            case: {str(label): vars(score) for label, score in found.items()} for case, found in scores.items()
        }
        options.out.write_text(json.dumps(plain, indent=2) + "\n")
