"""A bar per network on a terminal, a step per window; nothing elsewhere."""

from __future__ import annotations

import sys
from typing import Any


class Bars:
    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None

    def show(self, message: dict[str, Any]) -> None:
        """Take a message of a worker's."""
        if not sys.stderr.isatty():
            return
        if "network" in message:
            from tqdm import tqdm

            self.close()
            title = f"{self.title} {message['network']}"
            quiet = type("Bar", (tqdm,), {"monitor_interval": 0})  # no thread: the command may have to fork again
            self.bar = quiet(total=message["most"], desc=title, unit="window", leave=False)
        elif "window" in message:
            self.bar.update()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
