"""The peers that Viscera is measured beside: the commands that segment one scan with each, and how it was set up.

A peer gets its best honest settings on the machine at hand, in words that go into the result: the same networks, no
test-time augmentation, the fastest precision that it knows and as many threads as Viscera.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmark.peers.monai import monai
from benchmark.peers.nnunet import nnunet, nnunet_defaults
from benchmark.peers.peer import Networks, Peer
from benchmark.peers.totalsegmentator import totalsegmentator

PEERS: dict[str, Callable[[Networks, Path, Path], Peer]] = {
    "nnunet": nnunet,
    "nnunet-defaults": nnunet_defaults,
    "monai": monai,
    "totalsegmentator": totalsegmentator,
}
