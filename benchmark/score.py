"""DSC and NSD as FLARE 2023 scores them, and tumours one by one, of label maps with the names of their references."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.document import FORMAT, VERSION, markdown, output, write
from benchmark.lesions import Lesions, rows, score_lesions, summary
from benchmark.scoring import Score, means, read_pair, score_case
from inference.labels import TABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pred", type=Path, required=True, help="folder of X.nii.gz")
    parser.add_argument("--ref", type=Path, required=True, help="folder of X.nii.gz")
    parser.add_argument("--out", type=output, required=True, help="JSON file")


def run(options: argparse.Namespace) -> None:
    """DSC, NSD and tumours by reference. Raises ValueError where a label map is missing or on another grid."""
    references = sorted(options.ref.glob("*.nii.gz"))
    if not references:
        raise ValueError(f"{options.ref} holds no X.nii.gz")
    missing = [path.name for path in references if not (options.pred / path.name).is_file()]
    if missing:
        raise ValueError(f"{options.pred} lacks {', '.join(missing)}")
    scores: dict[str, dict[int, Score]] = {}
    tumours: dict[str, Lesions] = {}
    for path in references:
        case = path.name.removesuffix(".nii.gz")  # also x_0000, which is a case of a set that numbers its scans
        found, wanted, spacing = read_pair(options.pred / path.name, path)
        scores[case] = score_case(found, wanted, spacing, [one.value for one in TABLE])
        tumours[case] = score_lesions(found, wanted, spacing)
    document = as_document(scores, tumours)
    for structure in TABLE:
        mean = document["means"][str(structure.value)]
        print(f"{structure.title}: " + ", ".join(f"{key.upper()} {value}" for key, value in mean.items()))
    print(markdown(rows(tumours)))
    write(document, options.out)


def as_document(scores: Mapping[str, Mapping[int, Score]], tumours: Mapping[str, Lesions]) -> dict[str, Any]:
    """Scores by case and label, and tumours by case, as schema.json has them."""
    mean = means(scores)
    return {
        "format": FORMAT,
        "version": VERSION,
        "scores": {case: {str(label): vars(score) for label, score in found.items()} for case, found in scores.items()},
        "means": {str(one.value): vars(mean.get(one.value, Score(None, None))) for one in TABLE},
        "lesions": {
            "cases": {case: found.to_json() for case, found in tumours.items()},
            "all": summary(tumours.values()),
        },
    }
