"""Batches drawn while the steps before them run: in a separate thread and, on a GPU, in a separate stream.

Drawing a patch waits for the device about ten times. In the stream that trains, each wait is for the step before as
well, and then the GPU waits for Python: an H100 was idle for a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.chance import Chance

BATCHES = 2  # ahead, on a GPU: some take much longer to draw than others


@dataclass(frozen=True)
class Batch:
    """What a step is trained on."""

    chance: Chance  # that of the step, as drawing has left it
    image: Tensor  # (n, 1, z, y, x) float32, normalised
    label: Tensor  # (n, z, y, x) int64


class Ahead:
    """Hands on what `draw` makes of a step's number and of whether its patches are late ones.

    The batches are those that `draw` would make when they are asked for: whatever was drawn for a step that turns out
    to be another's is thrown away. `draw` is called by one thread at a time.
    """

    def __init__(self, draw: Callable[[int, bool], Batch], device: torch.device, batches: int) -> None:
        """`batches` are drawn ahead; with 0 each when it is asked for, without a thread."""
        self._draw, self._batches = draw, batches
        self._pool = ThreadPoolExecutor(1) if batches else None
        self._coming: dict[tuple[int, bool], Future[tuple[Batch, Any]]] = {}
        self._stream: Any = None
        if batches and device.type == "cuda":
            # Its small kernels go before those of the step.
            self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which has the volumes

    def take(self, step: int, late: bool) -> Batch:
        """The batch of a step. Raises what `draw` raised."""
        if not self._pool:
            return self._draw(step, late)
        wanted = [(step + number, late) for number in range(self._batches + 1)]
        for key in self._coming.keys() - set(wanted):
            self._coming.pop(key).cancel()
        for key in wanted:
            if key not in self._coming:
                self._coming[key] = self._pool.submit(self._drawn, *key)
        batch, drawn = self._coming.pop(wanted[0]).result()
        if drawn is not None:
            here = torch.cuda.current_stream(batch.image.device)
            here.wait_event(drawn)
            for tensor in (batch.image, batch.label):
                tensor.record_stream(here)  # its memory is not used again before the step has ended
        return batch

    def close(self) -> None:
        """Draw no more."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _drawn(self, step: int, late: bool) -> tuple[Batch, Any]:
        """A batch, and the event in its stream after which it is whole."""
        with torch.cuda.stream(self._stream):  # does nothing without one
            return self._draw(step, late), self._stream and self._stream.record_event()
