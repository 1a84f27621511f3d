"""Viscera: 13 abdominal organs and tumours from CT.

    from inference import Predictor
    labels = Predictor()(hu, spacing=(2.5, 0.78, 0.78), orientation="LPS")

Nothing is imported until a name is used, not even `typing`: `python -m inference --help` is immediate, and few
milliseconds pass before the command heeds signals.
"""

from .version import __version__

TYPE_CHECKING = False  # type checkers take it for typing's

# Public name -> the module that has it.
_PLACES = {
    "Grid": "scan",
    "Options": "options",
    "Predictor": "predictor",
    "Record": "record",
    "Scan": "scan",
    "peek": "formats.reading",
    "read_scan": "formats.reading",
    "segment_file": "task",
}
__all__ = ["Grid", "Options", "Predictor", "Record", "Scan", "__version__", "peek", "read_scan", "segment_file"]

if TYPE_CHECKING:
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

    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
