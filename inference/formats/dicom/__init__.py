"""DICOM."""

from importlib.util import find_spec

from ...errors import how_to_install

LIBRARIES = ("highdicom", "contourpy")


def cannot_write() -> str | None:
    """Why labels cannot be written as DICOM in this installation, a sentence; None if they can."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if not missing:
        return None
    are = "is" if len(missing) == 1 else "are"
    return f"labels in DICOM need {' and '.join(missing)}, which {are} not installed: {how_to_install('dicom')}"
