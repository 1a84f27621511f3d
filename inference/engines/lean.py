"""A start without what no run needs, for a process that is all ours.

- PyTorch imports what exports graphs and what tells shapes without computing, for torch.export and torch.compile: a
  third of `import torch`. Nothing that computes asks for it, but the profiler does.
- OpenVINO imports its converter of models, and with it its reporting of use over the network, where they are installed:
  two thirds of `import openvino` (0.09 of 0.14 s of processor time).
- nibabel imports pydicom, where it is installed, to show DICOM in extensions of NIfTI: half of `import nibabel`
  (0.19 of 0.38 s).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

EMPTY = ("torch.export", "torch._meta_registrations")
CONVERTER = "openvino.tools.ovc"


class _Empty(MetaPathFinder, Loader):
    """Finds and makes empty modules of these names."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in EMPTY else None

    def exec_module(self, module: ModuleType) -> None:
        pass


def start_lean() -> None:
    """Import nibabel, and have PyTorch and OpenVINO imported, without all this: for the rest of the process, but for
    pydicom, which its readers of DICOM import as ever. Does nothing to what is imported already."""
    modules: dict[str, Any] = sys.modules  # None stands for a module that is not there
    if "torch" not in modules:
        sys.meta_path.insert(0, _Empty())
    if "openvino" not in modules:
        modules[CONVERTER] = None
    if "pydicom" in modules:
        return
    modules["pydicom"] = None
    try:
        import nibabel  # noqa: F401
    finally:
        del modules["pydicom"]
