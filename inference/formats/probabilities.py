"""Probabilities of labels: kept on disk while a scan is segmented, then written as a folder of NIfTI files.

They come part by part and in a network's own axes, and a file needs them plane by plane in the scan's. In between they
lie in a file without a name, which is gone with the process. What is 0 is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from ..boxes import Box, bounding, shape_of, shifted
from ..card import Card
from ..errors import UnwrittenError, shown
from ..scan import Scan
from ..tilt import Tilt
from .atomic import new_folder, writing
from .nifti import file as nifti
from .recorded import digest
from .written import Written

SLOPE = 1 / 255  # what a stored 1 means
KEPT = "a file of probabilities"  # while the scan is segmented, as errors call it
LONGEST = 60  # characters of a file's name without its ending, of which each may take four bytes

Cropped = Callable[[np.ndarray], np.ndarray]  # as grids.view.View.cropped
Keep = Callable[[Box, np.ndarray], None]


@dataclass(frozen=True)
class _Label:
    """A label of a network, its file, and where its probabilities are: boxes of the cropped scan, with the place of
    the first byte of each. None of one that is not wanted are kept."""

    network: str
    value: int
    name: str
    file: str
    is_wanted: bool
    parts: list[tuple[Box, int]] = field(default_factory=list)


class Probabilities:
    """Those of all labels of some networks, for one scan; the background has none.

    cards   of the networks
    folder  with room for a byte for each voxel and label, as far as they are not 0
    wanted  values of the labels that are; others get no file. None: all

    Raises UnwrittenError.
    """

    def __init__(self, cards: Sequence[Card], folder: Path, wanted: Collection[int] | None = None) -> None:
        self._labels = list(_labels(cards, wanted))
        self._cropped: dict[str, Cropped] = {}
        with writing(KEPT, UnwrittenError):
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115  # closed by `close`

    def close(self) -> None:
        with suppress(OSError):  # what it could not write is not wanted any more
            self._file.close()

    def clear(self) -> None:
        """Forget what is kept, before another try. Raises UnwrittenError."""
        with writing(KEPT, UnwrittenError):
            self._file.seek(0)
        for label in self._labels:
            label.parts.clear()

    def of(self, card: Card, cropped: Cropped) -> Keep:
        """What takes those of a network: a box of the cropped scan, and (k, z, y, x) uint8, 255 for 1. It raises
        UnwrittenError. What was kept of this network is forgotten.

        cropped  gives a view of an array on the scan's grid: what the network sees of it, in its own axes
        """
        labels = [label for label in self._labels if label.network == card.name]
        self._cropped[card.name] = cropped
        for label in labels:
            label.parts.clear()

        def keep(box: Box, probabilities: np.ndarray) -> None:
            for label, own in zip(labels, probabilities, strict=True):
                if label.is_wanted and (part := bounding(own)) is not None:
                    label.parts.append((shifted(part, [along.start for along in box]), self._file.tell()))
                    values = np.ascontiguousarray(own[part])  # outside: too little memory is met by smaller windows
                    with writing(KEPT, UnwrittenError):
                        self._file.write(values.data)

        return keep

    def write(self, path: Path, scan: Scan) -> Written:
        """Write a folder with a file for each label, on the grid of the scan: whole or not at all.

        One that is there is replaced if it holds nothing but files of these names. Raises UnwrittenError.
        """
        tilt = Tilt.of(scan.grid) if scan.tilted else None
        volume = np.empty(tilt.grid.shape if tilt else scan.grid.shape, np.uint8)
        with (
            writing(shown(path.name), UnwrittenError),
            new_folder(path, {label.file for label in self._written}) as part,
        ):
            doubts = []
            for label in self._written:
                self._fill(volume, label)
                own = tilt.back(volume) if tilt else volume
                doubts.append(nifti.write_labels(part / label.file, own, scan, SLOPE).doubt)
            sha256 = digest(part)
        return Written(sha256, next(filter(None, doubts), None))

    @property
    def _written(self) -> list[_Label]:
        return [label for label in self._labels if label.is_wanted]

    def _fill(self, volume: np.ndarray, label: _Label) -> None:
        """The probabilities of a label on the scan's grid (z, y, x)."""
        volume.fill(0)
        for box, place in label.parts:
            values = np.empty(shape_of(box), np.uint8)
            self._file.seek(place)
            self._file.readinto(values.data)
            self._cropped[label.network](volume)[box] = values

    def listed(self) -> dict[str, dict[str, Any]]:
        """File -> the network and the label whose probabilities it holds."""
        return {
            label.file: {"network": label.network, "value": label.value, "name": label.name} for label in self._written
        }


def _labels(cards: Sequence[Card], wanted: Collection[int] | None) -> Iterator[_Label]:
    """In the order of the cards and of their channels."""
    taken: set[str] = set()
    for card in cards:
        for label in card.labels:
            if label.value:
                name = label.name if len(cards) == 1 else f"{card.name}.{label.name}"
                stem = re.sub(r"[^\w.-]+", "_", name)[:LONGEST].lstrip(".") or "label"
                number = 1
                while (file := f"{stem}{f'_{number}' if number > 1 else ''}.nii.gz").casefold() in taken:
                    number += 1
                taken.add(file.casefold())
                yield _Label(card.name, label.value, label.name, file, wanted is None or label.value in wanted)
