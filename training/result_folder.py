"""Moved to inference.export.back, which needs no --labels; goes with the next release."""

import argparse
from pathlib import Path

from inference.export.back import result_folder
from inference.export.program import or_exit
from training.moved import say_moved

if __name__ == "__main__":
    say_moved("training.result_folder", "inference.export.back")
    parser = argparse.ArgumentParser(prog="python -m training.result_folder")
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", help="not needed any more")
    or_exit(lambda options: result_folder(options.weights, options.folder), parser.parse_args())
