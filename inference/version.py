"""What a record says of the program that made it."""

__version__ = "0.2.0"
LABELS = 5  # raised whenever the same scan may get other labels than before; 0.1.0 had none in its records
