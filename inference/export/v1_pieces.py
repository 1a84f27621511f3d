"""What nnU-Net v1's own command does with labels in the end: postprocessing.json, of a model's folder."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .plain import mapping, need, number, read_json, whole

FILE = "postprocessing.json"


def largest(folder: Path, labels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of which labels the largest piece alone is kept, as a card says it: nnU-Net v1's load_postprocessing.

    labels  of the card, in the order of version 1's numbers
    Raises WeightsError where the file is something else, and where --value makes one label of several that it tells
    apart, or none.
    """
    path = folder / FILE
    if not path.exists():
        return []
    stored = read_json(path)
    try:
        classes, sizes = need(stored, "for_which_classes"), ast.literal_eval(str(stored.get("min_valid_object_sizes")))
        below: dict[Any, Any] | None = None if sizes is None else mapping(sizes, "min_valid_object_sizes")
        rules = []
        for one in range(1, len(labels)) if classes is None else classes:  # None: each label that is there
            group = tuple(whole(n, "for_which_classes", 1, len(labels) - 1) for n in _listed(one))
            rule: dict[str, Any] = {"values": [labels[n]["value"] for n in group]}
            if below is not None:
                size = below.get(group if isinstance(one, list) else one)
                rule["below"] = number(size, f"min_valid_object_sizes, {one}", 0, inf)
            rules.append(rule)
    except (ValueError, TypeError, SyntaxError) as error:
        raise WeightsError(f"{path}: {error}") from error
    values = [label["value"] for label in labels[1:]]
    wanted = {value for rule in rules for value in rule["values"]}
    if 0 in wanted or any(values.count(value) > 1 for value in wanted):
        raise WeightsError(
            f"{path} keeps the largest piece of labels that --value makes one with others, or background: move the "
            "file away to export without it"
        )
    return rules


def _listed(one: Any) -> list[Any]:
    return one if isinstance(one, list) else [one]
