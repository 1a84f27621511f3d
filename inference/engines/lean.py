"""A start of PyTorch without its compiler: a third of `import torch`.

It imports what exports graphs and what tells shapes without computing, for torch.export and torch.compile. A process
that does neither can leave them out; nothing that computes asks for them, but the profiler does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LEFT_OUT = ("torch.export", "torch._meta_registrations")


class _Empty(MetaPathFinder, Loader):
    """Finds and makes empty modules of these names."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in LEFT_OUT else None

    def exec_module(self, module: ModuleType) -> None:
        pass


def leave_out_compiler() -> None:
    """For the rest of this process, which must be all ours. Does nothing once PyTorch is imported."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Empty())
