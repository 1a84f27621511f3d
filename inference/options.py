"""What a run is asked for. Standard library only: the command and its supervisor use it too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
# Inside the package where it is installed with them, beside it in a checkout.
WEIGHTS = (_HERE if (_HERE / "weights").is_dir() else _HERE.parent) / "weights"
DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("openvino", "onnxruntime", "torch")  # in the order in which "auto" prefers them on a CPU, but for ARM
PRECISIONS = ("auto", "f32", "bf16", "f16", "int8")
UNEVEN = ("refuse", "resample")
LEAST_VOXELS = 500_000  # of a wide window where memory is short


@dataclass(frozen=True)
class Way:
    """How windows are laid, and what is kept of a network's answer.

    name          as --plan names it
    step          distance of windows, as a share of one; along z wide windows share planes as planes.wide_grid says
    in_body       labels stand in the body only, and windows where its muscle is
    boxed         windows lie over the box that is looked at as if that were the whole scan: fewer, but none where
                  nnU-Net has it
    wide          a network that takes any window sees planes as wide as the part that is looked at
    middle_first  windows in the middle of the grid come first, and those around them only if they found something
    follow        a later network looks only around what earlier ones found, if these were made for the abdomen too
    guided        a network looks only near the organs that its guide finds
    one_piece     what lies far from the rest of its organ is dropped, and a tumour in none of its hosts
    tta           a window is seen mirrored as well, along every combination of the card's mirror_axes
    most_voxels   of a wide window: 4 million take about 1.5 GB with what is computed on the way
    """

    name: str
    step: float = 0.5
    in_body: bool = False
    boxed: bool = False
    wide: bool = False
    middle_first: bool = False
    follow: bool = False
    guided: bool = False
    one_piece: bool = False
    tta: bool = False
    most_voxels: int = 4_000_000

    def smaller(self, most_voxels: int = LEAST_VOXELS) -> Way:
        """The way with windows of at most so many voxels, for a network that takes any window."""
        return replace(self, most_voxels=min(self.most_voxels, most_voxels)) if self.wide else self


DENSE = Way("dense")  # every window, as nnU-Net
ABDOMEN = Way("abdomen", in_body=True, wide=True, middle_first=True, follow=True, one_piece=True)
BODY = Way("body", in_body=True, boxed=True, wide=True)
ORGANS = Way("organs", guided=True)
CROP = Way("crop", guided=True, boxed=True, wide=True)
GUIDE = replace(ABDOMEN, most_voxels=2_000_000)  # of a guide: about as much memory as nnU-Net's patches take
WAYS = {way.name: way for way in (ABDOMEN, BODY, ORGANS, CROP, DENSE)}


def most_voxels(ways: Sequence[Way]) -> int:
    """Of a wide window in any of the ways, where memory may have made them smaller."""
    return min(way.most_voxels for way in ways)


def as_recorded(ways: Sequence[Way]) -> dict[str, Any]:
    """The fields `plan`, `step` and `tta` of a record: of networks whose ways differ all plans, and no step."""
    plans = dict.fromkeys(way.name for way in ways)
    steps = {way.step for way in ways}
    return {"plan": ", ".join(plans), "step": steps.pop() if len(steps) == 1 else None, "tta": ways[0].tta}


@dataclass(frozen=True)
class Options:
    """With what, and how, networks are run: all that decides labels but for the scan.

    weights             folder with one folder a network, as the exporter writes them, or a file that pack made of it
    networks            names in rising priority; None: organ and tumor, those of them that are there, else all
    device              "cpu", "cuda" or "auto"; engine, precision: see docs/usage.md
    plan                the name of a Way; None: for each network, what it was made for
    step                distance of the windows as a share of the patch, above 0 and at most 1; None: 0.5, or what each
                        network was tuned to if `plan` is None too
    tta                 logits are averaged over mirrored windows, as nnU-Net does unless it is told not to
    threads             processors to use; None: all that the process may
    accept_intensities  voxels that cannot be HU are a warning, not an error
    max_memory          bytes that the process may hold, on the CPU: windows are smaller if that helps, else a scan is
                        refused before it is read. None: what its container leaves
    uneven              "refuse" or "resample": what is done with slices of DICOM that are unevenly apart
    fix_orientation     a scan that certainly lies otherwise than its header says is segmented as it lies
    anonymous           DICOM that is written holds nothing of the patient and the study but the UIDs it refers to
    labels              names of those that are wanted, in any spelling that `labels.known` knows; None: all

    Raises ValueError where a value is of another kind.
    """

    weights: Path = WEIGHTS
    networks: tuple[str, ...] | None = None
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    plan: str | None = None
    step: float | None = None
    tta: bool = False
    threads: int | None = None
    accept_intensities: bool = False
    max_memory: int | None = None
    fix_orientation: bool = False
    uneven: str = UNEVEN[0]
    anonymous: bool = False
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _one_of("device", self.device, DEVICES)
        _one_of("engine", self.engine, ("auto", *ENGINES))
        _one_of("precision", self.precision, PRECISIONS)
        if self.plan is not None:
            _one_of("plan", self.plan, tuple(WAYS))
        _one_of("tta", self.tta, (False, True))
        _one_of("accept_intensities", self.accept_intensities, (False, True))
        _one_of("fix_orientation", self.fix_orientation, (False, True))
        _one_of("uneven", self.uneven, UNEVEN)
        _one_of("anonymous", self.anonymous, (False, True))
        if self.step is not None and (not _number(self.step, Real) or not 0 < self.step <= 1):
            raise ValueError(f"step {self.step!r} is not a number above 0 and at most 1")
        for name in ("threads", "max_memory"):
            value = getattr(self, name)
            if value is not None and not (_number(value, Integral) and value >= 1):
                raise ValueError(f"{name} {value!r} is not a whole number of at least 1")
        if not isinstance(self.weights, str | os.PathLike) or not os.fspath(self.weights):
            raise ValueError(f"weights {self.weights!r} is not the path of a folder")
        for name, value in (
            ("weights", Path(self.weights).absolute()),
            ("networks", _names("networks", self.networks)),
            ("labels", _names("labels", self.labels)),
            ("step", None if self.step is None else float(self.step)),
            ("threads", None if self.threads is None else int(self.threads)),
            ("max_memory", None if self.max_memory is None else int(self.max_memory)),
        ):
            object.__setattr__(self, name, value)

    @property
    def resample(self) -> bool:
        """Whether slices of DICOM that are unevenly apart are interpolated."""
        return self.uneven == "resample"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"weights": os.fspath(self.weights)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Options:
        return cls(**document)


def given_path(text: str) -> Path:
    """A path of a command line, for argparse. Path("") would be the current folder."""
    if not text.strip():
        from argparse import ArgumentTypeError  # whoever calls this has imported it

        raise ArgumentTypeError("the path is empty: an unset variable in a script?")
    return Path(text)


def given_names(text: str) -> list[str]:
    """Names of a command line, for argparse: liver,spleen."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError("nothing is named")
    return names


def _names(option: str, given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{option} {given!r} is not a name or a list of names")
    return tuple(names)


def _one_of(name: str, given: Any, choices: Sequence[Any]) -> None:
    if not isinstance(given, type(choices[0])) or given not in choices:
        raise ValueError(f"{name} {given!r} is not one of {', '.join(map(str, choices))}")


def _number(given: Any, kind: type) -> bool:
    return isinstance(given, kind) and not isinstance(given, bool)
