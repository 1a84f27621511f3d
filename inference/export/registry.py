"""Open checkpoints of nnU-Net that have a name here: registry.json.

Where each lies, what it segments and under which licence is what its own page says. Labels are in the order of the
network's channels, and stand for the names in dataset.json. For TotalSegmentator they are those of class_map_5_parts,
class_map_parts_mr and class_map in its map_to_binary.py, by which it reads its own networks: version 2.2.1 put ribs
right that had been in the wrong order, after the networks were trained. Its tasks, their addresses and crops are those
of map_tasks_config.py, their licence that of its README (all of 2.18.0). Bytes and the one digest are those that
several projects have published who pin these archives; no digest is published by TotalSegmentator itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ..errors import WeightsError
from ..labels import known

REGISTRY = Path(__file__).with_name("registry.json")
OWN, FLARE = "own", "flare"  # whose values labels get


@dataclass(frozen=True)
class Remote:
    """A file at an address.

    place   in a result folder; None: it is a ZIP archive that holds one
    bytes   its size, None where it is not known
    sha256  None where it is not known
    """

    url: str
    place: str | None = None
    bytes: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The path that it has among downloads."""
        return self.place or PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Part:
    """One network of an entry.

    first      value of its first label in a label map; the others follow
    files      one archive, or plans.json, dataset.json and fold_X/checkpoint_final.pth of one fold or more
    labels     names, in the order of the channels after the background
    near       keys of labels.ORGANS, around which its own program crops a scan; none: it does not, or around others
    auxiliary  those of `labels` that its own program drops: they only helped to learn the others
    """

    first: int
    files: tuple[Remote, ...]
    labels: tuple[str, ...]
    near: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()

    def values(self, whose: str) -> dict[str, int]:
        """Label -> its value in a label map; 0, as the background, for auxiliary ones, and with FLARE for those that
        FLARE does not have."""
        if whose == FLARE:
            values = {name: one.value if (one := known(name)) else 0 for name in self.labels}
        else:
            values = {name: self.first + index for index, name in enumerate(self.labels)}
        return values | dict.fromkeys(self.auxiliary, 0)


@dataclass(frozen=True)
class Entry:
    """What can be fetched by one name.

    segments, size, licence, page, cite, trained_on   for people
    orientation   of the scans that its networks were trained on; None: as each file stores them
    networks      name of a network -> where it is
    step          distance of windows, as a share of a patch, with which its own program runs them; None: nnU-Net's own
    """

    segments: str
    size: str
    licence: str
    page: str
    cite: str
    trained_on: str
    orientation: str | None
    networks: dict[str, Part]
    step: float | None = None

    def wanted(self, whose: str) -> dict[str, Part]:
        """Its networks that have a label which is not background."""
        return {name: part for name, part in self.networks.items() if any(part.values(whose).values())}


def entries() -> dict[str, Entry]:
    """Name -> entry, in the order of the file."""
    return {
        name: Entry(**fields | {"networks": {name: _part(**part) for name, part in fields["networks"].items()}})
        for name, fields in json.loads(REGISTRY.read_bytes()).items()
    }


def entry(name: str) -> Entry:
    """Raises WeightsError, saying which names there are."""
    every = entries()
    if name not in every:
        raise WeightsError(f"{name!r} is not a name known here: {', '.join(every)}")
    return every[name]


def _part(files: list[dict[str, str]], **fields: Any) -> Part:
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return Part(files=tuple(Remote(**one) for one in files), **fields | lists)  # type: ignore[arg-type]
