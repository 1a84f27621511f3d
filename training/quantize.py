"""Moved to inference.export.quantize; goes with the next release."""

from inference.export.quantize import main
from training.moved import say_moved

if __name__ == "__main__":
    say_moved("training.quantize", "inference.export.quantize")
    main()
