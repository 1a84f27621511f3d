"""Programs that have moved: their old names work for one release, and say the new one."""

from __future__ import annotations

import sys


def say_moved(old: str, new: str) -> None:
    """Tell on stderr that `python -m OLD` is `python -m NEW` now."""
    print(f"python -m {old} is now python -m {new}", file=sys.stderr)
