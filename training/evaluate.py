"""Moved to benchmark.evaluate; goes with the next release."""

import sys

from benchmark.__main__ import main
from training.moved import say_moved

if __name__ == "__main__":
    say_moved("training.evaluate", "benchmark evaluate")
    main(["evaluate", *sys.argv[1:]])
