"""The networks of a run: which of a folder they are, and the way of windows that suits them all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .card import FILE_NAME, Card, read_card
from .errors import WeightsError
from .options import DENSE, WAYS, Way

USUAL = ("organ", "tumor")  # rising priority: the paper lays the tumour over the organs


def read_cards(weights: Path, networks: Sequence[str] | None) -> list[Card]:
    """The cards of the networks asked for, in that order.

    Raises WeightsError where one is missing or cannot be read, and where `networks` is empty, names one twice or holds
    something else than names.
    """
    if networks is None:
        present = _present(weights)
        networks = [name for name in USUAL if name in present] or present
        if not networks:
            raise WeightsError(f"{weights} holds no network: a folder with {FILE_NAME} was looked for")
    names = [networks] if isinstance(networks, str) else list(networks)
    if not names:
        raise WeightsError("no network was named")
    for name in names:
        if not isinstance(name, str) or "\0" in name or name in ("", ".", "..") or Path(name).name != name:
            raise WeightsError(f"{name!r} is not the name of a network, that is, of a folder in {weights}")
        if names.count(name) > 1:
            raise WeightsError(f"network {name} is named {names.count(name)} times")
    return [read_card(weights / name) for name in names]


def digests(cards: Sequence[Card]) -> dict[str, str]:
    """Network -> sha256 of its card, which holds the sha256 of every model file."""
    return {card.name: card.digest for card in cards}


def way_of(cards: Sequence[Card], plan: str | None, step: float) -> Way:
    """The way of a run: as asked for by name, else the one that all networks were made for, else every window."""
    made_for = {card.way for card in cards}
    return replace(WAYS[plan or (made_for.pop() if len(made_for) == 1 else DENSE.name)], step=step)


def smaller_way(cards: Sequence[Card], way: Way) -> Way | None:
    """A way that takes less memory than `way`, None if none does for these networks."""
    return way.smaller() if any(card.window_multiple for card in cards) else None


def _present(weights: Path) -> list[str]:
    """The names of all networks. Raises WeightsError where a folder cannot be looked into: it may hold one."""
    try:
        return sorted(name for name in os.listdir(weights) if _is_network(weights / name))
    except OSError as error:
        raise WeightsError(f"{error.filename} cannot be read: {error.strerror}") from error


def _is_network(folder: Path) -> bool:
    try:
        os.stat(folder / FILE_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
