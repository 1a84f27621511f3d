"""Make a virtual environment with pip: `python3 requirements/environment.py FOLDER`.

As `python3 -m venv FOLDER`, but also where Debian's python3 came without python3-venv: then the pip that is
pinned here is fetched from PyPI.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import urllib.request
import venv
from importlib.util import find_spec
from pathlib import Path

PIP = "pip-26.3-py3-none-any.whl"
PIP_URL = "https://files.pythonhosted.org/packages/07/25/ee8c38ae72d66b844ce8eb9711ba905dba21ca1a8a0c960057c41cd23337"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


def main(folder: Path) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036, this file runs before anything could check
        sys.exit(f"error: Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}")
    if folder.is_symlink():  # venv would empty what it points to, an environment of another checkout, before it refuses
        sys.exit(f"error: {folder} is a link to {folder.resolve()}: remove the link, or set up that environment itself")
    complete = find_spec("ensurepip") is not None
    venv.create(folder, clear=True, symlinks=True, with_pip=complete)
    if not complete:
        install_pip(folder / "bin" / "python")


def install_pip(python: Path) -> None:
    """Fetch the pinned wheel, check it, and let it install itself."""
    with urllib.request.urlopen(f"{PIP_URL}/{PIP}") as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        sys.exit(f"error: {PIP_URL}/{PIP} is not the file that was pinned")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / PIP
        path.write_bytes(wheel)
        subprocess.run([python, f"{path}/pip", "install", "--quiet", "--no-index", path], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
