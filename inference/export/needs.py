"""What the extra `export` brings, looked for before it is imported: without it a program ends with a sentence, and an
import fails with it."""

import sys
from importlib.util import find_spec

from ..errors import how_to_install

NEEDED = ("nnunetv2", "onnx", "torch")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    text = f"the exporter needs the extra export, of which is missing: {', '.join(missing)}; {how_to_install('export')}"
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program and program.name.startswith(f"{__package__}."):
        sys.exit(f"error: {text}")
    raise ImportError(text)
