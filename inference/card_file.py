"""card.json, which the exporter writes beside a network: read, and of an older format made new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from .card import FORMS, WEIGHTS_FILE, Card, Channel, Earlier, Guide, Label, Largest, Resample, Resize
from .errors import WeightsError
from .options import DENSE, WAYS

T = TypeVar("T")

FILE_NAME = "card.json"
FORMAT = 2  # of what the exporter writes
OLD_FORMAT = 1  # read as well
GUIDE_FOLDER = "guide"  # of a network: holds the one that shows it where to look
# "ct": of the training, clipped; "zscore", "rescale01": mean and deviation, or minimum and range, of the scan;
# "rgb01": 0 to 255 become 0 to 1; "none": voxels as they are
NORMALISE = ("ct", "zscore", "rescale01", "rgb01", "none")
# nnU-Net's resample_data_or_seg_to_shape, resample_torch_fornnunet and no_resampling_hack
METHODS = ("spline", "torch", "none")
VERSIONS = (1, 2)  # of nnU-Net
DECODE = ("argmax", "regions")
TUNED = ("int8",)  # precisions that a card may name


def read_card(folder: Path) -> Card:
    """Read folder/card.json. Raises WeightsError, naming the file and the cause."""
    path = folder / FILE_NAME
    try:
        content = path.read_bytes()
        fields: dict[str, Any] = json.loads(content)
    except FileNotFoundError as error:
        raise WeightsError(f"no network at {folder}: {FILE_NAME} is missing") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    try:
        fields = newest(fields)
        if fields["format"] != FORMAT:
            raise WeightsError(f"{path} has format {fields['format']!r}, this program reads {OLD_FORMAT} and {FORMAT}")
        return _card(folder, fields, digest)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise WeightsError(f"{path} is not a complete card: {type(error).__name__} {error}") from error


def newest(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a card of format 1 as those of format 2; any others as they are."""
    if fields["format"] != OLD_FORMAT:
        return fields
    resample = {name: fields[name] for name in ("image_order", "logit_order", "force_separate_z")}
    channel = {name: fields[name] for name in ("clip", "mean", "std")}
    shared = [WEIGHTS_FILE] if WEIGHTS_FILE in fields["files"] else []
    kept = ("files", "orientation", "axes", "spacing", "patch", "window_multiple", "labels", "way", "activations")
    return {name: fields[name] for name in (*kept, "trained_on", "source") if name in fields} | {
        "format": FORMAT,
        "forms": {form: [*names, *shared] for form, names in FORMS.items() if names[0] in fields["files"]},
        "channels": [{"name": "CT", "normalise": "ct", **channel}],
        "resample": resample,
        "decode": "argmax",
    }


def _card(folder: Path, fields: dict[str, Any], digest: str) -> Card:
    """Raises KeyError, TypeError and the like. A field that nobody here knows may change what is meant: refused."""
    known = {field.name for field in dataclass_fields(Card)} | {"format", "source"}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"unknown field {unknown[0]}")
    return Card(
        name=folder.name,
        folder=folder,
        files=dict(fields["files"]),
        forms={form: tuple(names) for form, names in fields["forms"].items()},
        orientation=fields["orientation"],
        axes=_three(fields["axes"], int),
        spacing=_spacing(fields["spacing"]),
        patch=_three(fields["patch"], int),
        window_multiple=_three(multiple, int) if (multiple := fields.get("window_multiple")) else None,
        mirror_axes=_mirror_axes(fields.get("mirror_axes")),
        channels=tuple(_channel(channel) for channel in fields["channels"]),
        resample=_resample(fields["resample"]),
        head=None if (head := fields.get("head")) is None else str(head),
        decode=_one_of(fields["decode"], DECODE),
        labels=tuple(_label(label) for label in fields["labels"]),
        largest=tuple(_largest(one) for one in fields.get("largest", ())),
        way=_one_of(fields.get("way", DENSE.name), WAYS),
        step=_share(fields.get("step", DENSE.step)),
        precision=None if (precision := fields.get("precision")) is None else _one_of(precision, TUNED),
        activations=None if (activations := fields.get("activations")) is None else float(activations),
        trained_on=str(fields["trained_on"]),
        folds=int(fields.get("folds", 1)),
        after=_earlier(folder, fields["after"]) if fields.get("after") else None,
        guide=_guide(folder, fields["guide"], fields["channels"]) if fields.get("guide") else None,
        digest=digest,
    )


def _label(fields: Any) -> Label:
    hosts = tuple(int(host) for host in fields.get("hosts", ()))
    return Label(int(fields["value"]), str(fields["name"]), bool(fields.get("one_piece")), hosts)


def _largest(fields: dict[str, Any]) -> Largest:
    below = fields.get("below")
    return Largest(tuple(map(int, fields["values"])), None if below is None else float(below))


def _channel(fields: dict[str, Any]) -> Channel:
    channel = Channel(str(fields["name"]), _one_of(fields["normalise"], NORMALISE), masked=bool(fields.get("masked")))
    if not channel.is_ct:
        return channel
    low, high = (float(bound) for bound in fields["clip"])
    return replace(channel, clip=(low, high), mean=float(fields["mean"]), std=float(fields["std"]))


def _resample(fields: dict[str, Any]) -> Resample:
    """What is usual, order_z 0, splines and one rule for both, need not stand there."""
    image, logits = (
        Resize(
            order=int(fields[f"{kind}_order"]),
            order_z=int(fields.get(f"{kind}_order_z", 0)),
            force_separate_z=fields.get(f"{kind}_force_separate_z", fields["force_separate_z"]),
            method=_one_of(fields.get(f"{kind}_method", METHODS[0]), METHODS),
        )
        for kind in ("image", "logit")
    )
    return Resample(image, logits, _one_of(fields.get("version", 2), VERSIONS))


def _share(value: Any) -> float:
    if not 0 < value <= 1:
        raise ValueError(f"step {value!r} is not above 0 and at most 1")
    return float(value)


def _one_of(value: Any, known: Collection[T]) -> T:
    for one in known:
        if type(value) is type(one) and value == one:
            return one
    raise ValueError(f"{value!r} is not one of {', '.join(map(str, known))}")


def _earlier(folder: Path, fields: dict[str, Any]) -> Earlier:
    """Raises WeightsError where the card of the earlier network, beside this one, cannot be read."""
    name = fields["network"]
    if not isinstance(name, str) or name in ("", ".", "..", folder.name) or Path(name).name != name:
        raise ValueError(f"after has the network {name!r}")
    values = tuple(map(int, fields["values"]))
    if int(fields["order"]) not in (0, 1):
        raise ValueError(f"after has the order {fields['order']!r}")
    card = replace(read_card(folder.parent / name), guide=None)  # which is for its own labels
    if card.after:
        raise ValueError(f"network {name}, which it comes after, comes after another itself")
    method = _one_of(fields.get("method", METHODS[0]), METHODS)
    return Earlier(card, values, int(fields["order"]), fields["force_separate_z"], method)


def _guide(folder: Path, fields: dict[str, Any], channels: Sequence[Any]) -> Guide:
    """Raises WeightsError where the card of the guide, inside this one's folder, cannot be read."""
    card = replace(read_card(folder / GUIDE_FOLDER), name=f"{folder.name}/{GUIDE_FOLDER}")
    values = tuple(map(int, fields["values"]))
    if card.after or card.guide:
        raise ValueError("guide needs another network itself")
    if [_channel(one).is_ct for one in channels] != [True]:
        raise ValueError("guide, which sees CT, is that of a network which sees something else")
    if not values or not set(values) <= set(card.names):
        raise ValueError(f"guide has the values {fields['values']!r}")
    return Guide(card, values)


def _spacing(values: Any) -> tuple[float | None, float, float]:
    first, second, third = values
    return None if first is None else float(first), float(second), float(third)


def _mirror_axes(values: Any) -> tuple[int, ...] | None:
    axes = tuple(map(int, values or ()))
    if len(set(axes)) != len(axes) or not set(axes) <= {0, 1, 2}:
        raise ValueError(f"mirror_axes is {values!r}")
    return axes or None


def _three(values: Any, kind: Any) -> Any:
    first, second, third = values
    return kind(first), kind(second), kind(third)
