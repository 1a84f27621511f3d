"""What dataset.json of nnU-Net v2 says of a network's labels, checked.

Errors are ValueErrors with one sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..options import WAYS
from .plain import mapping, need, number, one_of, several, shown, whole

NOWHERE = 256  # and above: values of no label map


def way_of(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The card's `way` and `step`, where dataset.json says how windows are laid; nnU-Net's never does. What was
    just exported has no guide."""
    fields: dict[str, Any] = {}
    if "way" in dataset:
        fields["way"] = one_of(dataset["way"], "way", {name: name for name in WAYS if not WAYS[name].guided})
    if "step" in dataset:
        fields["step"] = number(dataset["step"], "step", 0.01, 1)
    return fields


def labels_of(dataset: Mapping[str, Any], values: Mapping[str, int]) -> list[dict[str, Any]]:
    """One entry an output channel, in order, as nnU-Net's LabelManager has them; `ignore` has none.

    values  replace those of labels in the label map

    Channel i of plain labels writes i, whatever value dataset.json gives its label: nnU-Net counts them. Region i
    writes the i-th of regions_class_order.
    """
    given = _numbered(dataset)
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            whole(one, f"label {shown(name)}", 0, 1000)
    if given.get("background") != 0:
        raise ValueError(f"labels are {shown(given)}: there is no background 0, which nnU-Net asks for")
    named = {name: value for name, value in given.items() if name != "ignore"}
    _check_ignored(given, named)
    found = _regions(dataset, named) if has_regions(dataset) else _counted(named)
    if unknown := set(values) - set(found):
        raise ValueError(f"label {sorted(unknown)[0]!r} is not one of {shown(list(found))}")
    one_piece = dataset.get("one_piece", [])
    if not isinstance(one_piece, list):
        raise ValueError(f"one_piece is {shown(one_piece)}, not a list of labels")
    labels = []
    for name, usual in found.items():
        value = values.get(name, usual)
        if not 0 <= value <= 255:
            raise ValueError(f"label {shown(name)} has value {value}, which a uint8 label map cannot hold")
        if name == "background" and value != 0:
            raise ValueError(f"background has value {value}, and a label map has 0 there")
        labels.append({"value": value, "name": name, "one_piece": name in one_piece})
    for name, bearing in _hosts(dataset, found).items():
        own = next(label for label in labels if label["name"] == name)
        own["hosts"] = [label["value"] for label in labels if label["name"] in bearing]
    return labels


def stacked_values(dataset: Mapping[str, Any], labels: Sequence[Mapping[str, Any]]) -> list[int]:
    """The values in the label map of a cascade's earlier stage that are input channels of the later one, in order.

    labels  of its card

    nnU-Net stacks the values that dataset.json gives, of regions those that they are made of, whichever a region
    writes, and looks for them in a label map that counts labels: of labels with gaps, 2 is the second, and the last are
    found nowhere. Each needs a value of its own in the label map; what is in none is above 255.
    """
    named = {name: value for name, value in _numbered(dataset).items() if name not in ("background", "ignore")}
    made_of = {one for value in named.values() for one in (value if isinstance(value, list) else [value])} - {0}
    values = [label["value"] for label in labels]
    written = list(enumerate(values))
    if has_regions(dataset):
        written = list(zip(_regions(dataset, named).values(), values, strict=True))
    each = [{new for usual, new in written if usual == value} or {NOWHERE + value} for value in sorted(made_of)]
    if any(len(one) > 1 for one in each):
        raise ValueError("two regions that write one label were given two values: of a cascade they need one")
    found = [value for (value,) in each]
    if len(set(found)) != len(found):
        raise ValueError("two labels have one value: the later stage of a cascade has to tell them apart")
    return found


def has_regions(dataset: Mapping[str, Any]) -> bool:
    """Whether the labels are regions, each a channel of its own: one of them has several values."""
    labels = mapping(need(dataset, "labels"), "labels").values()
    return any(isinstance(value, list) and len(value) > 1 for value in labels)


def _numbered(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The labels with whole numbers, which nnU-Net takes as text and as 1.0 as well. Among regions "0" stays text: it
    is no background to nnU-Net there."""
    regions = has_regions(dataset)

    def number_of(value: Any) -> Any:
        if isinstance(value, list):
            return [number_of(one) for one in value]
        if isinstance(value, str) and value.strip().isdecimal() and (int(value) or not regions):
            return int(value)
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return {name: number_of(value) for name, value in need(dataset, "labels").items()}


def _hosts(dataset: Mapping[str, Any], labels: Collection[str]) -> dict[str, list[str]]:
    """Label -> those in which it grows, which dataset.json may name: {"tumor": ["liver"]}."""
    hosts = mapping(dataset.get("hosts", {}), "hosts")
    for name, bearing in hosts.items():
        if not isinstance(bearing, list) or not {name, *bearing} <= set(labels) or name in bearing or not bearing:
            raise ValueError(f"hosts are {shown(hosts)}, not lists of other labels by label")
    return dict(hosts)


def _counted(named: Mapping[str, Any]) -> dict[str, int]:
    """Label -> its channel: one for each value, in the order of these. Of labels of one value the first names it."""
    values = {name: value[0] if isinstance(value, list) else value for name, value in named.items() if value != []}
    first = {value: name for name, value in reversed(values.items())} | {0: "background"}
    return {first[value]: channel for channel, value in enumerate(sorted(first))}


def _regions(dataset: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, int]:
    """Region -> the value that it writes, over those of earlier ones."""
    regions = [name for name, value in named.items() if set(value if isinstance(value, list) else [value]) != {0}]
    key = "regions_class_order"
    order = several(need(dataset, key), key, len(regions), whole, 0, 1000)
    return dict(zip(regions, order, strict=True))


def _check_ignored(given: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """nnU-Net takes an ignored label only if its value is the one after all others."""
    if given.get("ignore") is None:
        return
    most = max(one for value in named.values() for one in (value if isinstance(value, list) else [value]))
    if given["ignore"] != most + 1:
        raise ValueError(f"label 'ignore' is {shown(given['ignore'])}: nnU-Net takes only {most + 1}, the next value")
