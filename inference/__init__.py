"""Viscera: 13 abdominal organs and tumours from CT.

    from inference import Predictor
    labels = Predictor()(hu, spacing=(2.5, 0.78, 0.78))

Nothing is imported until a name is used, not even `typing`: `python -m inference --help` is immediate, and few
milliseconds pass before the command heeds signals.
"""

TYPE_CHECKING = False  # type checkers take it for typing's

__version__ = "0.2.0"
__all__ = ["Predictor", "Scan"]

if TYPE_CHECKING:
    from .predictor import Predictor
    from .scan import Scan


def __getattr__(name: str) -> object:
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    if name == "Scan":
        from .scan import Scan

        return Scan
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
