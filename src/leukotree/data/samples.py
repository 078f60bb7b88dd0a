"""Samples of a training order: rows of the index, and how each image is augmented."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Samples:
    """Some samples of the training order."""

    rows: np.ndarray
    """(b,) rows of the dataset's index."""
    crops: np.ndarray | None = None
    """(b, 5) rows of `geometry.draw`; None does not change the images."""
    numbers: np.ndarray | None = None
    """(b, C) rows of `augment.draw`."""
    views: np.ndarray | None = None
    """(b,) number of the fixed view that each image is seen in, see `views`; None for a view of its own."""

    def __getitem__(self, part: slice | np.ndarray) -> Samples:
        others = (self.crops, self.numbers, self.views)
        return Samples(self.rows[part], *(None if column is None else column[part] for column in others))
