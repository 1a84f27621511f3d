"""A result folder of nnU-Net v2, and files of PyTorch, read without running any code in them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..card_file import FILE_NAME as CARD
from ..errors import WeightsError
from .mistaken import is_part_of_v1, names_in_archive, what_a_checkpoint_is, what_it_is
from .plain import mapping, need, read_json, shown, text
from .write import DATASET, FINAL, PLANS

SLACK = 512 * 2**20  # bytes that reading may take beyond twice a file's own size

State = dict[str, torch.Tensor]


class NotPlainError(Exception):
    """A file of PyTorch's holds something besides tensors, numbers and text."""


@dataclass(frozen=True)
class Checkpoint:
    """One fold of a result folder of nnU-Net v2.

    file           the checkpoint
    plans          of plans.json, unchecked
    dataset        of dataset.json, unchecked
    configuration  name of the configuration in `plans` that was trained
    trainer        name of nnU-Net's trainer
    mirror_axes    inference_allowed_mirroring_axes, unchecked; None where it has none
    state          name of a parameter or buffer -> its values, on the CPU
    """

    file: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    trainer: str
    mirror_axes: Any
    state: State

    @property
    def plans_file(self) -> Path:
        """What `plans` was read from; nnU-Net v1 keeps its own beside each checkpoint."""
        beside = self.file.with_name(f"{self.file.name}.pkl")
        return beside if beside.exists() else self.file.parent.parent / PLANS

    @property
    def dataset_file(self) -> Path:
        """What `dataset` was read from: for nnU-Net v1 the plans, where there is no dataset.json."""
        given = self.file.parent.parent / DATASET
        return given if given.exists() else self.plans_file


def read_result_folder(folder: Path, fold: str | None = None, name: str = FINAL) -> list[Checkpoint]:
    """The folds of a result folder that `fold` asks for, see `fold_folders`. `name` is the checkpoint's.

    Raises WeightsError if the folder is something else, saying what and what to do, or if a file of it is missing,
    damaged, or holds more than tensors and plain values.
    """
    # No folder of version 1 has plans.json, but a network that was exported keeps it.
    planned = (folder / PLANS).exists() and not (folder / CARD).exists()
    if not planned and (not any(folder.glob("fold_*")) or is_part_of_v1(folder)):
        raise WeightsError(what_it_is(folder))
    plans, dataset = (read_json(folder / file) for file in (PLANS, DATASET))
    return [_read_fold(place / name, plans, dataset) for place in fold_folders(folder, fold, name)]


def _read_fold(file: Path, plans: dict[str, Any], dataset: dict[str, Any]) -> Checkpoint:
    refuse_missing(file, "*.pth")
    stored = read_torch(file)
    try:
        stored = mapping(stored, "what it holds")
        settings = mapping(need(stored, "init_args"), "init_args")
        return Checkpoint(
            file,
            plans,
            dataset,
            text(need(settings, "configuration"), "the configuration in init_args"),
            text(need(stored, "trainer_name"), "trainer_name"),
            stored.get("inference_allowed_mirroring_axes"),
            tensors_of(need(stored, "network_weights")),
        )
    except ValueError as error:
        raise WeightsError(f"{file} is not a checkpoint of nnU-Net v2: {error}") from error


def refuse_missing(file: Path, pattern: str) -> None:
    """Raise WeightsError if a checkpoint is missing, naming those beside it that match a pattern."""
    if not file.is_file():
        others = sorted(path.name for path in file.parent.glob(pattern))
        advice = f"{', '.join(others)}: --checkpoint {others[0]} takes it" if others else "no checkpoint"
        raise WeightsError(f"{file} is missing, its folder holds {advice}")


def read_torch(path: Path) -> Any:
    """What torch.save wrote to a file, if that is tensors and plain values.

    NumPy's numbers and arrays, which nnU-Net keeps in its log, become stand-ins. Raises WeightsError if the file is
    damaged, holds anything else, or would take much more memory than its own size.
    """
    try:
        with _nothing_but(STAND_INS), limited_memory(2 * path.stat().st_size + SLACK):
            stored = torch.load(path, map_location="cpu", weights_only=True)
        if zipfile.is_zipfile(path):  # of which PyTorch itself checks no digest
            with zipfile.ZipFile(path) as packed:
                if damaged := packed.testzip():
                    raise ValueError(f"the CRC of {damaged} differs")
        return stored
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(f"{path} cannot be read as a checkpoint: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """PyTorch's error, of up to ten lines with advice to load the file unsafely, as a part of a sentence."""
    if isinstance(error, NotPlainError):
        return str(error)
    message = str(error).split("WeightsUnpickler error: ")[-1].strip()
    if isinstance(error, MemoryError) or "can't allocate memory" in message:
        return "it would take far more memory than its own size"
    if foreign := re.search(r"GLOBAL (\S+)", message):
        return f"it holds {shown(foreign[1])}, and only tensors and plain values are read, since others could run code"
    first = message.splitlines()[0].split(". ")[0] if message else type(error).__name__
    return f"it is damaged or not a PyTorch file ({first})"


def refuse_no_parameters(file: Path) -> None:
    """Raise WeightsError, saying what it is, unless a file of PyTorch holds named tensors and nothing else."""
    if names_in_archive(file) is not None or is_part_of_v1(file) or file.suffix in (".onnx", ".json"):
        raise WeightsError(what_it_is(file))
    stored = read_torch(file)
    if isinstance(stored, dict) and "network_weights" in stored:
        raise WeightsError(what_a_checkpoint_is(file))
    try:
        tensors_of(stored)
    except ValueError as error:
        raise WeightsError(f"{file} does not hold a network's parameters: {error}") from error


class _Value:
    """Stands for a NumPy scalar or array: nothing here reads the log. Its bytes are never decoded."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _Dtype(_Value):
    """Stands for a NumPy dtype. With dtype object NumPy itself would unpickle what a scalar holds, that is run code."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSUmM]\d+", code):
            raise NotPlainError(f"it holds a NumPy value of type {shown(code)}, which is neither a number nor text")


# By the names that NumPy 1 and NumPy 2 pickle them under.
STAND_INS: list[Any] = [
    (_Dtype, "numpy.dtype"),
    (_Value, "numpy.ndarray"),
    *((_Value, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
]


@contextmanager
def _nothing_but(allowed: list[Any]) -> Iterator[None]:
    """Let torch.load make `allowed` beside tensors, and nothing that another library has allowed in this process."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Let this process take at most `more` bytes beyond what it has: a small file may claim, or unpack to, any size.

    Only Linux says what a process has; elsewhere there is no limit.
    """
    taken = Path("/proc/self/statm")
    if not taken.exists():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(taken.read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def tensors_of(value: Any) -> State:
    """`value` after everything in it was found to be a named tensor of numbers that lie in the file."""
    state = {}
    for name, tensor in mapping(value, "the table of weights").items():
        if not isinstance(name, str) or type(tensor) not in (torch.Tensor, torch.nn.Parameter) or vars(tensor):
            raise ValueError(f"{shown(name)} is not the name of a plain tensor")
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{shown(name)} claims numbers that the file does not hold")
        # What torch.compile and training on several GPUs wrap around a network, in either order.
        state[re.sub(r"^((module|_orig_mod)\.)+", "", name)] = tensor.detach()
    return state


def fold_folders(model_folder: Path, fold: str | None, name: str) -> list[Path]:
    """The folders of the folds that are asked for, in their order and each once.

    fold  numbers with commas between them; "all", which is fold_all where that is there, else every fold with a
          checkpoint of this name; None, where there is one fold only
    """
    folds = sorted(path for path in model_folder.glob("fold_*") if path.is_dir())
    names = ", ".join(path.name for path in folds)
    if not folds:
        raise WeightsError(f"{model_folder} has no fold_*: nothing was trained there")
    if fold is None:
        if len(folds) > 1:
            numbered = [path.name.removeprefix("fold_") for path in folds if path.name != "fold_all"]
            every = "all" if len(numbered) == len(folds) else ",".join(numbered)
            raise WeightsError(f"{model_folder} has {names}: choose one with --fold, or their mean with --fold {every}")
        return folds
    trained = [path for path in folds if (path / name).is_file()]
    if fold == "all" and model_folder / "fold_all" not in folds and trained:
        return trained
    chosen = sorted({model_folder / f"fold_{one.strip().removeprefix('fold_')}" for one in fold.split(",")})
    if missing := [path.name for path in chosen if path not in folds]:
        raise WeightsError(f"{model_folder} has no {missing[0]}, only {names}")
    return chosen
