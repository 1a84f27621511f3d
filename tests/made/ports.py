"""Ports for programs that must be told theirs."""

from __future__ import annotations

import random
import socket
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nobody listens on.

    Below those that the system gives to whoever asks for any: between this call and the program's start, which may take
    seconds, none of these is given away."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(10_000, max(lowest, 20_000)), 100):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
