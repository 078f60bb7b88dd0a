"""Digests of image files. All files of a manifest are read once, before any image is decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import xxhash

from leukotree import progress, signals
from leukotree.errors import InputError, Preempted

UNREADABLE = ""
"""Digest of a file that exists and cannot be read. The error comes when it is decoded."""
_CHUNK = 64
"""Files in one task of a thread."""


def of_bytes(data: bytes) -> str:
    """Return the xxh3 digest (128 bits, hex).

    It is as fast as memory, and long enough that no two images of a collection share one by chance.
    """
    return xxhash.xxh3_128_hexdigest(data)


def of_files(paths: Sequence[str], workers: int) -> list[str]:
    """Return `of_bytes` of each file, in order, read by `workers` threads.

    Raises InputError for a file that does not exist, and Preempted after a signal to stop.
    """

    def of_chunk(start: int) -> list[str]:
        return [_of_file(path) for path in paths[start : start + _CHUNK]]

    digests: list[str] = []
    pool = ThreadPoolExecutor(workers, "read")
    try:
        with progress.Bar("read", len(paths), "image") as bar:
            for chunk in pool.map(of_chunk, range(0, len(paths), _CHUNK)):
                if signals.requested():
                    raise Preempted(f"{len(digests)} of {len(paths)} images are read, nothing is packed yet")
                digests += chunk
                bar.advance(len(chunk))
    finally:
        pool.shutdown(cancel_futures=True)
    return digests


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
