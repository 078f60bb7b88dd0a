"""Unusual images that may come from a failed conversion: of one colour, nearly black, nearly white."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FLAT = 1.0
"""An image is of one colour if the standard deviation of each channel, in levels, is below this."""
_BLACK, _WHITE = 24.0, 248.0
"""Levels: every part of a nearly black image is darker on average, of a nearly white one brighter."""


def unusual(
    names: Sequence[str], decoded: np.ndarray, colours: np.ndarray, thumbnails: np.ndarray
) -> dict[str, tuple[str, ...]]:
    """Return the kind of unusual appearance -> names of such images, in their order.

    An image is listed only under the first kind that fits.

    Args:
        names: (N,) names of the images.
        decoded: (N,) bool; other images are left out.
        colours: (N, 6), mean and standard deviation of R, G and B in levels.
        thumbnails: (N, S, S, 3) uint8, each value the mean of a part of the image.
    """
    parts = thumbnails.reshape(len(thumbnails), -1, 3).mean(axis=-1)
    kinds = {
        "blank (one colour)": (colours[:, 3:] < _FLAT).all(axis=1),
        "nearly black": parts.max(axis=1) < _BLACK,
        "nearly white": parts.min(axis=1) > _WHITE,
    }
    images, rest = {}, decoded.copy()
    for kind, fits in kinds.items():
        if (rows := np.flatnonzero(fits & rest)).size:
            images[kind] = tuple(names[int(row)] for row in rows)
        rest &= ~fits
    return images
