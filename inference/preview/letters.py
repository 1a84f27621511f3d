"""The few letters that a picture needs, as pixels."""

from __future__ import annotations

import numpy as np

# Rows from the top, of as many columns as a letter is wide.
LETTERS = {
    "0": ".###. #...# #...# #...# #...# #...# .###.",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ...#. ..#.. .#... #####",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "m": "..... ..... ##.#. #.#.# #.#.# #.#.# #.#.#",
    "R": "####. #...# #...# ####. #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "P": "####. #...# #...# ####. #.... #.... #....",
    " ": "... ... ... ... ... ... ...",
}


def drawn(text: str) -> np.ndarray:
    """A mask (7, columns) of a text of these letters. Raises KeyError for another."""
    letters = [np.array([[pixel == "#" for pixel in row] for row in LETTERS[one].split()]) for one in text]
    return np.concatenate([np.pad(letter, ((0, 0), (0, 1))) for letter in letters], axis=1)
