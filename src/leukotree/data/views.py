"""Fixed augmented views of images: the same for all runs of a data set, so that a frozen backbone computes
the features of each one once.

View 0 is the image as it is. The views 1 to K are augmented. Their random numbers are a function of the view
and of the row of the index, and of no seed: the runs of all seeds and folds share them. Epoch e of a training
shows view 1 + e modulo K.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from leukotree.data import augment, geometry
from leukotree.data.samples import Samples
from leukotree.spec import AugmentSpec

_SEED = 0
_STREAM = 1
"""Keeps the numbers of views apart from those of an epoch of a run with the seed 0."""
BLOCK = 2**16
"""Rows whose numbers are drawn at once."""


@dataclass(frozen=True)
class Views:
    """The views of the images of one data set.

    Args:
        count: K, the number of augmented views.
        augment: ranges of the augmentation.
        size: width and height of the images in pixels.
        drawn: whether samples carry the numbers of their augmentation, for those who decode the images.
    """

    count: int
    augment: AugmentSpec
    size: int
    drawn: bool = True

    @classmethod
    def of(cls, augment: AugmentSpec, size: int, drawn: bool = True) -> Views | None:
        """The views that a spec asks for; None where each epoch draws new ones."""
        return None if augment.views is None else cls(augment.views, augment, size, drawn)

    def of_epoch(self, epoch: int) -> int:
        """The number of the view that an epoch shows."""
        return 1 + epoch % self.count if self.count else 0

    def samples(self, rows: np.ndarray, epoch: int) -> Samples:
        """(n,) rows of the index as an epoch shows them."""
        return self.seen(rows, self.of_epoch(epoch))

    def seen(self, rows: np.ndarray, view: int) -> Samples:
        """(n,) rows of the index in one view."""
        views = np.full(len(rows), view, dtype=np.int16)
        if not (view and self.drawn):
            return Samples(rows, views=views)
        crops = np.empty((len(rows), len(geometry.COLUMNS)), dtype=np.int32)
        numbers = np.empty((len(rows), len(augment.COLUMNS)), dtype=np.float32)
        blocks, places = rows // BLOCK, rows % BLOCK
        for block in np.unique(blocks).tolist():
            here = blocks == block
            of_block = _table(view, block, self.size, self.augment)
            for column, table in zip((crops, numbers), of_block, strict=True):
                column[here] = table[places[here]]
        return Samples(rows, crops, numbers, views)


@lru_cache(maxsize=64)  # all views of a block, 4 MB each: a pass sees a few images in one after the other
def _table(view: int, block: int, size: int, ranges: AugmentSpec) -> tuple[np.ndarray, np.ndarray]:
    """(BLOCK, 5) crops and (BLOCK, 9) colours of the rows of a block in a view."""
    place = view, BLOCK
    return geometry.draw(_SEED, *place, size, ranges, _STREAM, block), augment.draw(
        _SEED, *place, _STREAM, block
    )
