"""Labels of weak teachers, by hand."""

from __future__ import annotations

import numpy as np

from training import labels as codes
from training.labelling.weak_labels import agreed


def test_weak_teachers_are_believed_where_they_agree_and_in_one_piece() -> None:
    first = np.zeros((40, 6, 6), np.uint8)
    first[2:12] = 1  # the liver, 10 voxels of 2 mm
    first[13:15] = 1  # a piece close by
    first[30:32] = 1  # a piece 36 mm away
    first[20:24, :3] = 3
    first[36:38, :2, :2] = 4  # the pancreas, of which teachers may have found a part
    second = first.copy()
    second[20:24, 2:3] = 0
    labels = agreed([first, second], (2.0, 2.0, 2.0), keep=0.5)
    assert (labels[2:12] == 1).all()
    assert (labels[13:15] == codes.IGNORE).all() and (labels[30:32] == 0).all()
    assert (labels[36:38, :2, :2] == 4).all()
    assert labels[36, 0, 4] == codes.IGNORE and labels[36, 0, 5] == 0  # 6 and 8 mm away
    assert (labels[20:24, :2] == 3).all() and (labels[20:24, 2] == codes.IGNORE).all()
    # Most teachers are enough for a pancreas, not for a spleen.
    third = first.copy()
    third[36:38] = third[20:24] = 0
    labels = agreed([first, second, third], (2.0, 2.0, 2.0), keep=0.5)
    assert (labels[36:38, :2, :2] == 4).all() and (labels[20:24, :3] == codes.IGNORE).all()
    # An aorta that one of them has lost halfway is one piece.
    whole = np.zeros((40, 6, 6), np.uint8)
    whole[:, 2:4, 2:4] = 5
    torn = whole.copy()
    torn[10:25] = 0
    labels = agreed([whole, torn, whole], (2.0, 2.0, 2.0), keep=0.5)
    ends = np.r_[0:10, 25:40]
    assert (labels[ends][:, 2:4, 2:4] == 5).all() and (labels[10:25, 2:4, 2:4] == codes.IGNORE).all()
