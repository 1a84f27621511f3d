"""Viscera: 13 abdominal organs and tumours from CT.

    from viscera import Predictor     # in a checkout the package is the folder inference
    labels = Predictor()(hu, spacing=(2.5, 0.78, 0.78), orientation="LPS")

Nothing is imported until a name is used, not even `typing`: `--help` is immediate, and few
milliseconds pass before the command heeds signals.
"""

from .version import __version__

TYPE_CHECKING = False  # type checkers take it for typing's

# Public name -> the module that has it; None: it is one.
_PLACES = {
    "Grid": "scan",
    "Options": "options",
    "Predictor": "predictor",
    "Record": "record",
    "Scan": "scan",
    "errors": None,
    "peek": "formats.reading",
    "read_scan": "formats.reading",
    "segment_file": "task",
    "write_labels": "formats.nifti.file",
}
__all__ = [
    "Grid",
    "Options",
    "Predictor",
    "Record",
    "Scan",
    "__version__",
    "errors",
    "peek",
    "read_scan",
    "segment_file",
    "write_labels",
]

if TYPE_CHECKING:
    from . import errors
    from .formats.nifti.file import write_labels
    from .formats.reading import peek, read_scan
    from .options import Options
    from .predictor import Predictor
    from .record import Record
    from .scan import Grid, Scan
    from .task import segment_file


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    place = _PLACES[name]
    return getattr(import_module(f".{place}", __name__), name) if place else import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
