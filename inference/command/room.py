"""Memory that workers share: whether a scan may begin beside those that run."""

from __future__ import annotations

from collections.abc import Iterable

from .. import machine


class Room:
    """What all workers of a run may hold together.

    most  bytes; None: what the container leaves as the run begins, and at any time what the machine has free
    """

    def __init__(self, most: int | None) -> None:
        self.container = max(machine.container_budget(), 1)
        self.most = most or self.container

    def fits(self, need: int, own: int, others: Iterable[tuple[int, int]]) -> bool:
        """Whether a process may come to hold `need` bytes, of which it holds `own`.

        others  of each other worker, the bytes that it was promised and those that it holds
        """
        taken = growing = 0
        for promised, held in others:
            taken += max(promised, held)
            growing += max(promised - held, 0)
        return need <= min(self.most - taken, machine.memory_left() + own - growing)
