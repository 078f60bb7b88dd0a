"""Images of a packed data set that look like a failure on the way: of one colour, nearly black, nearly
white."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FLAT = 1.0
"""Standard deviation in levels, of each channel, below which an image has one colour."""
_BLACK, _WHITE = 24.0, 248.0
"""Levels: no part of a nearly black image is on average brighter, no part of a nearly white one darker."""


def unusual(
    names: Sequence[str], decoded: np.ndarray, colours: np.ndarray, thumbnails: np.ndarray
) -> dict[str, tuple[str, ...]]:
    """What is unusual -> names of such images, in their order; each image stands under the first that fits.

    Args:
        names: one per image.
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
    chosen, free = {}, decoded.copy()
    for kind, fits in kinds.items():
        if (rows := np.flatnonzero(fits & free)).size:
            chosen[kind] = tuple(names[int(row)] for row in rows)
        free &= ~fits
    return chosen
