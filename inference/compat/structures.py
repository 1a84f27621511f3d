"""TotalSegmentator's structures: the class map of its task `total`, and which of them some networks know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..card import Card
from ..errors import WeightsError
from ..export.registry import OWN, entry
from ..labels import known


@cache
def class_map() -> dict[str, int]:
    """Structure -> its value in a label map, as in class_map["total"] of TotalSegmentator 2 (map_to_binary.py)."""
    parts = entry("totalsegmentator").networks.values()
    return {name: value for part in parts for name, value in part.values(OWN).items()}


def theirs(name: str) -> str | None:
    """TotalSegmentator's name of a label, None where it has none."""
    ours = known(name)
    found = ours.totalsegmentator if ours else name
    return found if found in class_map() else None


@dataclass(frozen=True)
class Structures:
    """The structures that are asked for of some networks.

    names     value in TotalSegmentator's label map -> structure, in rising order
    networks  those that know one of them, in the order of TotalSegmentator's parts: where two find something, the later
              stands
    """

    names: Mapping[int, str]
    networks: tuple[str, ...]


def recoded(labels: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    """Labels of networks, uint8, with TotalSegmentator's values.

    names  value in `labels` -> label that is a structure, background left out
    """
    codes = np.zeros(256, np.uint8)
    for value, name in names.items():
        codes[value] = class_map()[theirs(name) or ""]
    return codes[labels]


def wanted(cards: Iterable[Card], subset: Iterable[str] | None) -> Structures:
    """The structures of `subset`, all that the networks know if it is None.

    Raises ValueError where one is not known to the networks, WeightsError where they know none.
    """
    cards = list(cards)
    here = {name for card in cards for name in _of(card)}
    if not here:
        raise WeightsError("none of these networks has a label that is a structure of TotalSegmentator")
    asked = here if subset is None else set(subset)
    if not asked:
        raise ValueError("roi_subset names no structure")
    if unknown := sorted(asked - here):
        there = ", ".join(name for name in class_map() if name in here)
        raise ValueError(f"the networks do not know {', '.join(unknown)}. They know {there}")
    used = sorted((card for card in cards if _of(card) & asked), key=_first)
    return Structures(
        {value: name for name, value in class_map().items() if name in asked},
        tuple(card.name for card in used),
    )


def _of(card: Card) -> set[str]:
    return {name for label in card.names.values() if (name := theirs(label))}


def _first(card: Card) -> int:
    return min(class_map()[name] for name in _of(card))
