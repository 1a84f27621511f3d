"""What the extra `export` brings, looked for before it is imported: without it a program ends with a sentence."""

import sys
from importlib.util import find_spec

NEEDED = ("nnunetv2", "onnx", "torch")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    sys.exit(
        f"error: this program needs the extra export, of which is missing: {', '.join(missing)}; "
        'pip install ".[export]" in a checkout'
    )
