"""The program that exports a checkpoint: see convert."""

from . import needs  # noqa: F401  # isort: skip

from .convert import main

main(f"python -m {__package__}")
