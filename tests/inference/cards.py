"""Cards for tests that need no weights."""

from __future__ import annotations

from pathlib import Path

from inference.card import Card, Channel, Label, Resample, Resize


def make_card(
    spacing: tuple[float, float, float] = (4.0, 1.2, 1.2),
    *,
    name: str = "organ",
    patch: tuple[int, int, int] = (8, 16, 16),
    channels: int = 5,
    orientation: str | None = None,
    axes: tuple[int, int, int] = (0, 1, 2),
    values: tuple[int, ...] | None = None,
    window_multiple: tuple[int, int, int] | None = None,
    inputs: int = 1,
    decode: str = "argmax",
    mirror_axes: tuple[int, ...] | None = None,
) -> Card:
    """A card of a network whose channel i writes i, or values[i]."""
    labels = tuple(Label(value, f"label {value}") for value in values or range(channels))
    return Card(
        name=name,
        folder=Path(),
        files={},
        forms={},
        orientation=orientation,
        axes=axes,
        spacing=spacing,
        patch=patch,
        window_multiple=window_multiple,
        channels=(Channel("CT", "ct", clip=(-160.0, 240.0), mean=80.0, std=70.0),) * inputs,
        mirror_axes=mirror_axes,
        resample=Resample(image=Resize(3), logits=Resize(1)),
        head=None,
        decode=decode,
        labels=labels,
        largest=(),
        way="dense",
        step=0.5,
        precision=None,
        activations=None,
        trained_on="",
        folds=1,
        after=None,
        guide=None,
        digest="",
    )
