"""Batches that are drawn ahead are those that would be drawn when they are asked for."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.training.test_train import CPU, SETTINGS, load, make_trainer  # noqa: E402
from training.ahead import Ahead, Batch  # noqa: E402
from training.chance import Chance  # noqa: E402


class Drawer:
    """Draws batches that say what they were drawn for, and notes it, and by which thread."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, bool]] = []
        self.threads: set[int] = set()

    def __call__(self, step: int, late: bool) -> Batch:
        if step == 9:
            raise ValueError("nothing to draw")
        self.drawn.append((step, late))
        self.threads.add(threading.get_ident())
        return Batch(Chance.seeded(CPU, step), torch.full((1,), step), torch.full((1,), int(late)))


def test_each_step_gets_its_own_batch_drawn_by_another_thread() -> None:
    draw = Drawer()
    ahead = Ahead(draw, CPU, 2)
    taken = [ahead.take(step, late) for step, late in ((0, False), (1, False), (2, True), (3, True), (3, True))]
    ahead.close()
    assert [(int(one.image), bool(one.label)) for one in taken] == [
        *((0, False), (1, False), (2, True), (3, True)),
        (3, True),
    ]
    assert [one.chance.rng.random() for one in taken] == [Chance.seeded(CPU, n).rng.random() for n in (0, 1, 2, 3, 3)]
    assert draw.drawn[:2] == [(0, False), (1, False)] and threading.get_ident() not in draw.threads
    assert max(draw.drawn) <= (5, True), "no more than two steps ahead"


def test_without_batches_ahead_nothing_is_drawn_before_it_is_asked_for() -> None:
    draw = Drawer()
    ahead = Ahead(draw, CPU, 0)
    assert int(ahead.take(4, True).image) == 4
    assert draw.drawn == [(4, True)] and draw.threads == {threading.get_ident()}


def test_what_goes_wrong_in_the_other_thread_is_raised_where_the_batch_is_asked_for() -> None:
    ahead = Ahead(Drawer(), CPU, 2)
    ahead.take(7, False)  # 8 and 9 are drawn ahead
    ahead.take(8, False)
    with pytest.raises(ValueError, match="nothing to draw"):
        ahead.take(9, False)
    ahead.close()


def test_a_training_ends_with_the_same_weights(packed: Path, tmp_path: Path) -> None:
    """Its norms are frozen on the way, when batches for other steps are on the way too."""
    settings, before = replace(SETTINGS, steps=4, freeze=0.4, save_seconds=100.0), set(threading.enumerate())
    for batches in (0, 2):
        trainer = make_trainer(packed, tmp_path / str(batches), settings)
        trainer.ahead = Ahead(trainer.draw, CPU, batches)
        trainer.run()
    first, second = (load(tmp_path / str(batches) / "bn.pt") for batches in (0, 2))
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in set(threading.enumerate()) - before)
