"""The program that exports a checkpoint: see convert."""

from .convert import main

main(f"python -m {__package__}")
