"""Memory that a process with its networks loaded may hold, and which scans fit into it. It is known on the CPU only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod

from .card import Card
from .cgroups import ENDLESS
from .engines.choose import Choice
from .errors import MemoryBudgetError
from .estimate import estimate, fitting
from .formats.geometry import BESIDE
from .machine import container_budget, held_memory
from .names import PREVIEW, PROBABILITIES
from .options import Options, Way, most_voxels
from .record import Record
from .scan import Scan
from .tilt import Tilt


@dataclass(frozen=True)
class Budget:
    """Of the networks of some cards. Scans may lack their voxels, as of `formats.reading.peek`.

    choice, options  with which they are loaded
    base             bytes that the process held once they were

    Of its methods' arguments:

    folders    of names.FOLDERS: what is asked for as well
    container  bytes that the container leaves, where that is known; default: what it leaves now
    """

    cards: Sequence[Card]
    options: Options
    choice: Choice
    base: int

    def limit(self, container: int | None = None) -> int | None:
        """Bytes that this process may hold: as asked for, else what its container leaves; None where nobody says."""
        limit = self.options.max_memory or container or container_budget() + held_memory()
        return limit if limit < ENDLESS and self.choice.device == "cpu" else None

    def need(self, scan: Scan, ways: Sequence[Way], folders: Collection[str], container: int) -> int:
        """Bytes that this process takes at most for a scan that is read from files, and that its reader asks for; 0 on
        a GPU: nobody knows."""
        if self.choice.device != "cpu":
            return 0
        voxels, (held, most) = prod(scan.grid.shape), scan.voxel_bytes
        base = self._beside(scan, folders)
        if self.limit(container) is None:  # its voxels are not freed in between
            base += voxels * held * self._channels
        need = estimate(_as_networks_see(scan), self.cards, ways, self.choice, base, PREVIEW in folders)
        return max(need, base + voxels * (held * (self._channels - 1) + most + BESIDE))

    def fitting(
        self,
        scan: Scan,
        ways: tuple[Way, ...],
        record: Record,
        folders: Collection[str] = (),
        container: int | None = None,
    ) -> tuple[Way, ...]:
        """Ways that the limit allows: `ways`, or these with smaller windows. The record gets the limit, if there is
        one, and what was decided.

        Raises MemoryBudgetError, whose text goes on from the scan's name.
        """
        limit = self.limit(container)
        if limit is None:
            return ways
        record.memory_limit_mb = limit / 1e6
        base = self._beside(scan, folders)
        fits, need = fitting(_as_networks_see(scan), self.cards, ways, self.choice, base, limit, PREVIEW in folders)
        record.memory_estimate_mb = need / 1e6
        if fits is None:
            raise MemoryBudgetError(
                f"is too large for these networks: up to {need / 1e9:.2f} GB are needed, and the limit is "
                f"{limit / 1e9:.2f} GB"
            )
        if fits != ways:
            record.fallback.append(
                f"memory is limited to {limit / 1e9:.2f} GB: in windows of {most_voxels(fits):,} voxels at most"
            )
        return fits

    @property
    def _channels(self) -> int:
        return len(self.cards[0].channels)

    def _beside(self, scan: Scan, folders: Collection[str]) -> int:
        """Bytes beside those that the networks take for a scan."""
        base, voxels, held = self.base, prod(scan.grid.shape), scan.voxel_bytes[0]
        if PROBABILITIES in folders:  # those of a plane in several forms, and then of one label at a time
            _, y, x = sorted(scan.grid.shape)
            base += 16 * max(len(card.labels) for card in self.cards) * y * x + voxels
        if self.options.fix_orientation:  # voxels and labels are kept for another look
            base += (held * self._channels + 1) * voxels
        if scan.tilted:  # voxels are copied upright
            base += held * voxels
        return base


def _as_networks_see(scan: Scan) -> Scan:
    """The scan on the grid on which networks see it."""
    return replace(scan, grid=Tilt.of(scan.grid).grid) if scan.tilted else scan
