"""`python -m inference.export MODEL_FOLDER OUT`: see convert."""

from .convert import main

main(f"python -m {__package__}")
