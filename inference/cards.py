"""The networks of a run: which of a folder they are, and the way of windows of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .card import Card
from .card_file import FILE_NAME, read_card
from .errors import DeviceError, WeightsError
from .labels import Structure, known
from .options import GUIDE, LEAST_VOXELS, WAYS, Options, Way, as_recorded

EXPORT_FIRST = "export it, then give the folder that the network is in"
USUAL = ("organ", "tumor")  # rising priority: the paper lays the tumour over the organs


def read_cards(weights: Path, networks: Sequence[str] | None) -> list[Card]:
    """The cards of the networks asked for, in that order. One that is there only for a later one is not run for its own
    labels unless it is named.

    Raises WeightsError where one is missing or cannot be read, where they take other numbers of channels or have one
    value for several things, and where `networks` is empty, names one twice or holds something else than names.
    """
    if networks is None:
        present = networks_in(weights)
        networks = [name for name in USUAL if name in present] or _last(weights, present)
        if not networks:
            raise WeightsError(no_network(weights))
    names = [networks] if isinstance(networks, str) else list(networks)
    if not names:
        raise WeightsError("no network was named")
    for name in names:
        if not isinstance(name, str) or "\0" in name or name in ("", ".", "..") or Path(name).name != name:
            raise WeightsError(f"{name!r} is not the name of a network, that is, of a folder in {weights}")
        if names.count(name) > 1:
            raise WeightsError(f"network {name} is named {names.count(name)} times")
    for name in names:
        if not os.path.exists(weights / name / FILE_NAME) and (present := networks_in(weights)):
            raise WeightsError(f"there is no network {name} in {weights}, only {', '.join(present)}")
    cards = [read_card(weights / name) for name in names]
    for card in cards[1:]:
        if len(card.channels) != len(cards[0].channels):
            few, many = (f"{one.name} {len(one.channels)}" for one in (cards[0], card))
            raise WeightsError(f"networks of one run take as many channels as each other: {few}, {many}")
    _check_values(cards)
    return cards


def _check_values(cards: Sequence[Card]) -> None:
    """Raises WeightsError where a value would stand for two things in one label map."""
    meant: dict[int, tuple[str, Card]] = {}
    for card in cards:
        for value, name in card.names.items():
            other, first = meant.setdefault(value, (name, card))
            if first is not card and _meaning(other) != _meaning(name):
                raise WeightsError(
                    f"value {value} is {other} in network {first.name} and {name} in {card.name}: choose with "
                    "--networks, or export one of them with other values"
                )


def networks_of(options: Options, weights: Path) -> tuple[list[Card], tuple[Way, ...]]:
    """The networks that run for some options, and the way of each: those that are asked for, as far as a label that is
    wanted needs them.

    weights  the folder of networks, unpacked
    Raises as `read_cards`, `ways_of` and `labels_of`.
    """
    cards = read_cards(weights, options.networks)
    ways = ways_of(cards, options.plan, options.step, options.tta)
    if options.labels is None:
        return cards, ways
    wanted = labels_of(cards, options.labels).keys()
    places = [place for place, card in enumerate(cards) if not wanted.isdisjoint(card.names)]
    if any(way.follow for way in ways):  # what an earlier network finds says where a later one looks
        places = list(range(max(places) + 1))
    return [cards[place] for place in places], tuple(ways[place] for place in places)


def labels_of(cards: Sequence[Card], wanted: Sequence[str] | None) -> dict[int, str]:
    """Value in the label map -> name, of the labels that are wanted, background left out; of all if `wanted` is None.

    Raises WeightsError where no network has one of them.
    """
    names = {value: name for card in cards for value, name in card.names.items()}
    if wanted is None:
        return names
    unknown = [name for name in wanted if _meaning(name) not in set(map(_meaning, names.values()))]
    if unknown:
        raise WeightsError(f"no network of this run has a label {unknown[0]}, only {', '.join(names.values())}")
    meant = set(map(_meaning, wanted))
    return {value: name for value, name in names.items() if _meaning(name) in meant}


def chosen(cards: Sequence[Card], wanted: Sequence[str] | None) -> list[str] | None:
    """The names of the labels that are wanted as a record has them; None if the networks have no other."""
    names = labels_of(cards, wanted)
    return list(names.values()) if len(names) < len(labels_of(cards, None)) else None


def _meaning(name: str) -> Structure | str:
    return known(name) or name


def which_are_ct(cards: Sequence[Card]) -> tuple[bool, ...]:
    """For each input channel whether a network takes it as CT in HU."""
    return tuple(
        any(channel.is_ct for channel in same) for same in zip(*(card.channels for card in cards), strict=True)
    )


def for_abdomens(cards: Sequence[Card]) -> bool:
    """Whether a network was made for CT of abdomens, so that what shows none is no scan for it."""
    return any(WAYS[card.way].in_body for card in cards)


def with_earlier(cards: Sequence[Card]) -> list[Card]:
    """The cards, and before each those of networks that run before it."""
    return [one for card in cards for one in (*(before.card for before in (card.after, card.guide) if before), card)]


def on_their_ways(cards: Sequence[Card], ways: Sequence[Way]) -> list[tuple[Card, Way]]:
    """What is loaded, in the order in which it runs, with the way of its windows: a guide only where the way is a
    guided one, and once where several networks have the same."""
    pairs = []
    guides = set()
    for card, way in zip(cards, ways, strict=True):
        if card.after:
            pairs.append((card.after.card, way))
        if card.guide and way.guided and card.guide.card.digest not in guides:
            guides.add(card.guide.card.digest)
            pairs.append((card.guide.card, GUIDE))
        pairs.append((card, way))
    return pairs


def digests(cards: Sequence[Card]) -> dict[str, str]:
    """Network -> sha256 of its card, which holds the sha256 of every model file."""
    return {card.name: card.digest for card in with_earlier(cards)}


def record_fields(cards: Sequence[Card], ways: Sequence[Way], options: Options) -> dict[str, Any]:
    """The fields of a record that say how labels are made, whatever the scan."""
    return {
        "weights": digests(cards),
        **as_recorded(ways),
        "chosen": chosen(cards, options.labels),
        "anonymous": options.anonymous,
    }


def ways_of(cards: Sequence[Card], plan: str | None, step: float | None, tta: bool = False) -> tuple[Way, ...]:
    """The way of each network: as asked for by name, else the one that it was made for.

    Raises DeviceError where it looks for the body, which it knows in CT only, and the network takes another image, and
    WeightsError where `tta` is asked for and a network allows no axis to be mirrored, or the plan needs a guide and a
    network has none.
    """
    return tuple(_way_of(card, plan, step, tta) for card in cards)


def _way_of(card: Card, plan: str | None, step: float | None, tta: bool) -> Way:
    way = WAYS[plan or card.way]
    for mirrored in (*((card.after.card,) if card.after else ()), card):
        if tta and not mirrored.mirror_axes:
            raise WeightsError(f"--tta was asked for, but network {mirrored.name} stores no axis that may be mirrored")
    if way.guided and not card.guide:
        raise WeightsError(
            f"plan {way.name} needs a network that shows where to look, and network {card.name} has none: "
            "export.tune gives it one"
        )
    if way.in_body and not card.channels[0].is_ct:
        raise DeviceError(
            f"plan {way.name} finds the body in CT, and the first channel of network {card.name} is "
            f"{card.channels[0].name} without HU: plan dense takes it"
        )
    return replace(way, step=step or (way.step if plan else card.step), tta=tta)


def smaller_ways(cards: Sequence[Card], ways: Sequence[Way], most_voxels: int = LEAST_VOXELS) -> tuple[Way, ...] | None:
    """The ways with windows of at most so many voxels where a network takes any window; None if all are so small."""
    smaller = tuple(
        way.smaller(most_voxels) if _takes_any(card) else way for card, way in zip(cards, ways, strict=True)
    )
    return smaller if smaller != tuple(ways) else None


def _takes_any(card: Card) -> bool:
    return bool(card.window_multiple or (card.after and card.after.card.window_multiple))


def _last(weights: Path, names: Sequence[str]) -> list[str]:
    """Of networks, those that no other comes after."""
    earlier = {card.after.card.name for card in (read_card(weights / name) for name in names) if card.after}
    return [name for name in names if name not in earlier]


def networks_in(weights: Path) -> list[str]:
    """The names of all networks; none where the folder is a network itself, which may hold a guide. Raises WeightsError
    where a folder cannot be looked into, as it may hold one."""
    try:
        present = sorted(name for name in os.listdir(weights) if _is_network(weights / name))
        return [] if _is_network(weights) else present
    except OSError as error:
        raise WeightsError(f"{error.filename} cannot be read: {error.strerror}") from error


def left_aside(cards: Sequence[Card], weights: Path) -> list[str]:
    """The names of networks in a folder that do not run with these."""
    run = {card.name for card in with_earlier(cards)}
    return [name for name in networks_in(weights) if name not in run]


def no_network(weights: Path) -> str:
    """Why a folder is not one of networks."""
    if _is_network(weights):
        return f"{weights} is a network itself: give the folder that it is in"
    if (weights / "plans.json").exists() or (weights / "plans.pkl").exists():
        return f"{weights} is a result folder of nnU-Net: {EXPORT_FIRST}"
    return f"{weights} holds no network: a folder with {FILE_NAME} was looked for"


def _is_network(folder: Path) -> bool:
    try:
        os.stat(folder / FILE_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
