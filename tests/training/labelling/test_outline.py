"""The outline of a tumour in a liver of blocks."""

from __future__ import annotations

import numpy as np
import pytest

from training import labels as codes
from training.labelling.outline import outlined


def test_a_tumour_is_outlined_from_a_point() -> None:
    hu = np.full((60, 60, 44), -100.0)
    labels = np.zeros(hu.shape, np.uint8)
    liver = (slice(5, 55), slice(5, 55), slice(4, 40))
    tumour = (slice(15, 45), slice(15, 45), slice(8, 36))
    tail = (slice(45, 55), slice(30, 33), slice(20, 23))  # a vessel without contrast that touches it
    vessel = (slice(18, 20), slice(18, 20), slice(15, 25))  # one with contrast inside it
    hu[liver], labels[liver] = 120, 1
    hu[tumour] = hu[tail] = 70
    hu[vessel] = 160
    labels[50:55, 50:55, 20:23] = 3
    found = outlined(hu, labels, (1.0, 1.0, 1.0), (32, 32, 22), below=95, organ=1)
    wanted = np.zeros(hu.shape, bool)
    wanted[tumour] = True
    assert 2 * np.sum(wanted & (found == 14)) / (wanted.sum() + np.sum(found == 14)) > 0.85
    assert (found[tail][3:] != 14).all() and (found[vessel] == 14).all()
    assert (found[labels == 3] == 3).all() and (found[5:8] == labels[5:8]).all()
    assert (found[48, 20:30, 12:19] == codes.IGNORE).all()  # the rim
    with pytest.raises(ValueError, match="not well inside"):
        outlined(hu, labels, (1.0, 1.0, 1.0), (50, 8, 20), below=95, organ=1)
