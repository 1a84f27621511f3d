"""Segment labelled scans and score the result: `python -m benchmark evaluate WEIGHTS SCANS... --references DIR`.

Prints DSC and NSD as FLARE 2023 computes them, per scan and label, and their means; and tumours one by one (see
benchmark.lesions). A reference may know fewer labels than the network: only those that it holds are scored, and
`--labels` names others that it would hold had they been in view, such as 14 where it is known that there is no tumour:
then what is called one is false. Scores of scans that the network was trained on say nothing: leave those out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmark.document import markdown, output, write
from benchmark.lesions import Lesions, rows, score_lesions
from benchmark.process import start
from benchmark.run import add_flags
from benchmark.score import as_document
from benchmark.scoring import Score, mean_of, means, read_pair, score_case
from inference.formats.cases import find_cases
from inference.labels import BY_VALUE, ORGANS, TABLE, TUMOR
from inference.names import labels_file


def evaluate(
    weights: Path, scans: list[Path], references: Path, labels: list[int], flags: list[str]
) -> tuple[dict[str, dict[int, Score]], dict[str, Lesions]]:
    """Scores by case and label, and tumours by case where that label is scored.

    Raises CalledProcessError where inference fails, ValueError for a wrong grid, a folder that holds several scans,
    two scans of one name, and a scan without a reference.
    """
    scores: dict[str, dict[int, Score]] = {}
    tumours = {}
    cases: dict[str, Path] = {}
    for scan in scans:
        name, *more = (case.name for case in find_cases(scan, Path()).cases)
        if more:
            raise ValueError(f"{scan} holds {1 + len(more)} scans: name each of them, such as {scan}/*_0000.nii.gz")
        if name in cases:
            raise ValueError(f"{cases[name]} and {scan} have the same case name, {name}")
        cases[name] = scan
    for case, scan in cases.items():  # before any of them is segmented
        if not (reference := labels_file(references, case)).is_file():
            raise ValueError(f"{reference} is not there, the reference of {scan}")
    with tempfile.TemporaryDirectory(prefix="viscera-evaluate-") as temporary:
        for case, scan in cases.items():
            start(scan, temporary, "--weights", weights, *flags)
            found, wanted, spacing = read_pair(labels_file(Path(temporary), case), labels_file(references, case))
            held = {int(value) for value in np.unique(wanted)} & BY_VALUE.keys()
            scores[case] = score_case(found, wanted, spacing, sorted(held | set(labels)))
            if TUMOR.value in scores[case]:
                tumours[case] = score_lesions(found, wanted, spacing)
    return scores, tumours


def of_organs(scores: dict[int, Score]) -> Score:
    """Mean over the organs of one case, or of the means of several."""
    return mean_of([scores[organ.value] for organ in ORGANS if organ.value in scores])


def table(scores: dict[str, dict[int, Score]]) -> str:
    """A Markdown table: one row a label, DSC / NSD in per cent, one column a case, and the mean."""

    def cell(score: Score | None) -> str:
        if score is None or score.dsc is None or score.nsd is None:
            return ""
        return f"{100 * score.dsc:.1f} / {100 * score.nsd:.1f}"

    mean = means(scores)
    made = [["label", *scores, "mean"]]
    for one in TABLE:
        if one.value in mean:
            made.append([one.title, *(cell(case.get(one.value)) for case in scores.values()), cell(mean[one.value])])
    made.append(["mean of organs", *(cell(of_organs(case)) for case in scores.values()), cell(of_organs(mean))])
    return markdown(made)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--references", type=Path, required=True, help="folder with X.nii.gz for X_0000.nii.gz")
    parser.add_argument("--labels", default="", help="score these labels too, such as 7,8")
    parser.add_argument("--out", type=output, help="JSON file for the scores")
    add_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Print the table of scores, and that of tumours if a reference knows any."""
    labels = [int(label) for label in options.labels.split(",") if label]
    scores, tumours = evaluate(options.weights, options.scans, options.references, labels, options.flags)
    print(table(scores))
    if tumours:
        print(f"\n{markdown(rows(tumours))}")
    if options.out:
        write(as_document(scores, tumours), options.out)
