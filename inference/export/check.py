"""Every installed engine on one window, each in a separate process.

The process is `-m ...export.check FOLDER ENGINE PRECISION WINDOW.npy LOGITS.npy`.
"""

from __future__ import annotations

import subprocess  # nosec B404
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np

from ..card_file import read_card
from ..engines.choose import choose, load
from ..errors import WeightsError
from ..grids.decode import with_logits
from ..machine import ran_out, usable_cpus
from ..options import ENGINES

LARGEST_DIFFERENCE = 1e-3  # of the largest logit: f32 engines differ by the order of their sums, about 1e-5
KILLED = -9  # by the kernel, where memory runs out


def check_engines(folder: Path, window: np.ndarray, expected: np.ndarray) -> None:
    """Run each installed engine on a window (1, c, z, y, x). Raises WeightsError if logits are not as `expected`.

    folder  of the network, with its card
    An engine for which memory is too small is passed over; raises MemoryError if that is the first, which runs take.
    """
    first = choose("cpu", "auto", "f32").engine
    with tempfile.TemporaryDirectory(prefix="viscera-check-") as temporary:
        given, answer = Path(temporary) / "window.npy", Path(temporary) / "logits.npy"
        np.save(given, window)
        for engine in ENGINES:
            if find_spec(engine) is None:
                print(f"{engine}: not installed, not checked")
                continue
            print(f"{engine}: the same window", flush=True)
            start = perf_counter()
            command: list[str | Path] = [sys.executable, "-m", f"{__package__}.check", folder, engine, "f32"]
            # No shell, and a program of ours: bandit asks to look.
            done = subprocess.run(  # nosec B603
                [*command, given, answer], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                if done.returncode != KILLED and not said.startswith("MemoryError") and not ran_out(Exception(said)):
                    raise WeightsError(f"engine {engine} cannot run the network: {said}")
                if engine == first:
                    raise MemoryError(f"engine {engine} ran out of memory in a window of the network")
                print(f"{engine}: memory ran out, not checked", flush=True)
                continue
            difference = float(np.abs(np.load(answer) - expected).max() / np.abs(expected).max())
            print(f"{engine}: largest difference from PyTorch's module {difference:.1e} of the largest logit, "
                  f"{perf_counter() - start:.0f} s", flush=True)  # fmt: skip
            if not difference < LARGEST_DIFFERENCE:
                raise WeightsError(f"engine {engine} differs by {difference:.1e}, over {LARGEST_DIFFERENCE:.0e}")


def main() -> None:
    folder, engine, precision, window, logits = sys.argv[1:]
    card = read_card(Path(folder))
    network = with_logits(load(choose("cpu", engine, precision), card, usable_cpus()), card, np)
    np.save(logits, network(np.load(window)))


if __name__ == "__main__":
    main()
