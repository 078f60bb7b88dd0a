"""Images that look the same: a difference hash of 64 bits, then the small pictures themselves.

The hash (Krawetz 2013, "dHash") has a bit for each two neighbours of a thumbnail: whether the right one is
brighter. Resizing, compression and changes of brightness change few bits. It does not find turned, mirrored
or shifted copies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from leukotree.data import duplicates

THUMBNAIL = 9
"""Side of the compared thumbnails in pixels. Their 8 x 8 brightness differences are a hash of 64 bits."""
BITS = 2
"""The hashes of near duplicates differ in at most this many bits."""
LEVELS = 4.0
"""Their thumbnails differ by at most this many of 255 levels, on average over pixels and channels."""
LARGEST_CLASS = 32
"""Of more images with one hash, those that look like an earlier one are compared with this one alone: n
images of nothing would have n * n pairs."""
_AT_ONCE = 2048
"""Most images that are compared each with each. A larger bucket is divided again."""


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """(9, 9, 3) uint8 from (H, W, 3) uint8: the mean of each part of the picture."""
    size = (THUMBNAIL, THUMBNAIL)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """(N,) uint64 from (N, 9, 9, 3) uint8."""
    grey = thumbnails[:, :-1].astype(np.int64) @ [299, 587, 114]  # (N, 8, 9) luma times 1000
    bits = (np.diff(grey, axis=2) > 0).reshape(len(grey), 64)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def alike(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of rows with nearly equal thumbnails, ascending.

    All such pairs are found, except among many images with one hash (see `LARGEST_CLASS`), where each image
    that looks like an earlier one has a pair with this one alone. Groups over pairs are the same.

    Args:
        thumbnails: (N, 9, 9, 3) uint8.
    """
    if len(thumbnails) < 2:
        return []
    codes = hashes(thumbnails)
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.int16)
    leaders, pairs = _within_classes(codes, flat)
    found = [np.asarray(pairs, dtype=np.int64).reshape(-1, 2)]
    rows = np.flatnonzero(leaders)
    for first, second in _near(codes[rows], np.arange(len(rows)), np.arange(64)):
        one, other = rows[first], rows[second]
        close = np.abs(flat[one] - flat[other]).mean(axis=1) <= LEVELS
        found.append(np.stack([one[close], other[close]], axis=1))
    every = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return [(int(one), int(other)) for one, other in every]


def groups(n: int, pairs: list[tuple[int, int]]) -> list[np.ndarray]:
    """Return the sets of two or more of n rows that pairs join, directly or through others."""
    if not pairs:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(one)), (one, other)), shape=(n, n))
    return duplicates.repeated_labels(connected_components(links, directed=False)[1])


def _within_classes(codes: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return (N,) bool: the rows that are compared with others, and the pairs of the other rows.

    The others are, among many rows with one hash, those that look like an earlier one.
    """
    leaders, pairs = np.ones(len(codes), dtype=bool), []
    for rows in duplicates.repeated_labels(np.unique(codes, return_inverse=True)[1]):
        rest = rows if len(rows) > LARGEST_CLASS else rows[:0]
        while len(rest):
            like = np.abs(flat[rest] - flat[rest[0]]).mean(axis=1) <= LEVELS
            followers = rest[like][1:]
            pairs += [(int(rest[0]), int(row)) for row in followers]
            leaders[followers] = False
            rest = rest[~like]
    return leaders, pairs


def _near(codes: np.ndarray, rows: np.ndarray, bits: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of `rows` whose hashes differ in at most BITS bits, some of them repeatedly.

    Hashes that differ in so few of `bits` agree in one or more of BITS + 1 bands of these bits, so only rows
    that share a band are compared. The rows of a large bucket are divided by bands of the other bits.

    Args: bits: positions of the bits in which the rows may differ; they agree in the others.
    """
    if len(rows) <= _AT_ONCE or len(bits) <= BITS:
        yield from _each_with_each(codes, rows)
        return
    for band in range(BITS + 1):
        # Every third bit, from all over the image. Neighbouring bits would all be alike in a dark border.
        own = bits[band :: BITS + 1]
        mask = np.uint64(sum(1 << int(bit) for bit in own))
        bucket = np.unique(codes[rows] & mask, return_inverse=True)[1]
        small: list[np.ndarray] = []
        for places in duplicates.repeated_labels(bucket):
            if len(places) > _AT_ONCE:
                yield from _near(codes, rows[places], np.setdiff1d(bits, own))
            else:
                small.append(rows[places])
        yield from _in_buckets(codes, small)


def _in_buckets(codes: np.ndarray, buckets: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the near pairs of rows of one bucket. Small buckets are many, so they are compared together: each
    row with the one that stands `step` later."""
    if not buckets:
        return
    order = sorted(buckets, key=len, reverse=True)
    rows = np.concatenate(order)
    ends = np.repeat(np.cumsum([len(one) for one in order]), [len(one) for one in order])
    places = np.arange(len(rows))
    for step in range(1, len(order[0])):
        places = places[places + step < ends[places]]
        one, other = rows[places], rows[places + step]
        near = np.bitwise_count(codes[one] ^ codes[other]) <= BITS
        if near.any():
            yield one[near], other[near]


def _each_with_each(codes: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        for later in range(start, len(rows), _AT_ONCE):
            others = rows[later : later + _AT_ONCE]
            near = np.bitwise_count(codes[part][:, None] ^ codes[others][None, :]) <= BITS
            one, other = np.nonzero(np.triu(near, 1) if later == start else near)
            yield part[one], others[other]
