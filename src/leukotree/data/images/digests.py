"""Which bytes the images of a manifest have: read once, before anything is decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import xxhash

from leukotree import progress, signals
from leukotree.errors import InputError, Preempted

UNREADABLE = ""
"""Stands for a file that is there and cannot be read: decoding it says why."""
_AT_ONCE = 64
"""Files that a thread takes at once."""


def of(data: bytes) -> str:
    """xxh3 hex (128 bits) of bytes: at the speed of memory, and no two images of a collection share one by
    chance."""
    return xxhash.xxh3_128_hexdigest(data)


def of_files(paths: Sequence[str], workers: int) -> list[str]:
    """`of` each file's content, in order, read by so many threads.

    Raises InputError for a file that is not there, and Preempted when the process is asked to stop.
    """

    def several(start: int) -> list[str]:
        return [_of_file(path) for path in paths[start : start + _AT_ONCE]]

    known: list[str] = []
    pool = ThreadPoolExecutor(workers, "read")
    try:
        with progress.Bar("read", len(paths), "image") as bar:
            for some in pool.map(several, range(0, len(paths), _AT_ONCE)):
                if signals.requested():
                    raise Preempted(f"{len(known)} of {len(paths)} images are read, nothing is packed yet")
                known += some
                bar.advance(len(some))
    finally:
        pool.shutdown(cancel_futures=True)
    return known


def _of_file(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; take its row out of the manifest"
        ) from error
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
    except OSError:
        return UNREADABLE
