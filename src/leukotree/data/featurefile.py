"""A file of the features of all images of a data set, in all their views: made once, mapped by all runs.

Features are stored in chunks of CHUNK images with all their views. A chunk has a checksum, written after
its numbers. So a kill loses one chunk, and a damaged chunk is computed again. The file's space is reserved
when it is made: a full disk is an error then.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

CHUNK = 64
"""Images of a chunk, which the backbone computes at once. It is fixed: the bits of a feature may depend on
it."""
FOLDER = ".features"
"""Folder of these files beside the folders of studies."""
SUFFIX = ".features"
_MAGIC = b"LTFEATS1"
_HEADER = struct.Struct("<8sQQQ")
"""MAGIC, images, views (with view 0), numbers of a feature vector."""


class Shape(NamedTuple):
    """The size of a file of features."""

    images: int
    views: int
    """Views of an image, with the one that is not augmented."""
    width: int
    """F, the numbers of a feature vector."""

    @property
    def chunks(self) -> int:
        return -(-self.images // CHUNK)

    @property
    def start(self) -> int:
        """The position of the features: after header and checksums, at the start of a memory page."""
        return -(-(_HEADER.size + 8 * self.chunks) // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def bytes(self) -> int:
        """The length of the file."""
        return self.start + 4 * self.images * self.views * self.width

    def rows(self, chunk: int) -> np.ndarray:
        """The rows of the index of a chunk."""
        return np.arange(chunk * CHUNK, min(self.images, (chunk + 1) * CHUNK))


class FeatureFile:
    """A file of this shape, mapped when its numbers are first asked for."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self.path, self.shape = path, shape

    @cached_property
    def _map(self) -> mmap.mmap:
        with open(self.path, "rb") as file:
            return mmap.mmap(file.fileno(), self.shape.bytes, prot=mmap.PROT_READ)

    @cached_property
    def values(self) -> np.ndarray:
        """(images, views, F) float32, read-only. View 0 is the image as it is."""
        size = self.shape.images, self.shape.views, self.shape.width
        return np.ndarray(size, np.float32, self._map, self.shape.start)

    def take(self, rows: np.ndarray, views: np.ndarray | None) -> np.ndarray:
        """(b, F) float32 features of (b,) rows in (b,) views; None for view 0."""
        taken: np.ndarray = self.values[rows, 0 if views is None else views]
        return taken

    @property
    def _sums(self) -> np.ndarray:
        """(chunks,) uint64 checksums. 0: the chunk is not there."""
        return np.ndarray(self.shape.chunks, np.uint64, self._map, _HEADER.size)

    @property
    def complete(self) -> bool:
        """Whether all chunks were written. They are not read."""
        return bool(self._sums.all())

    def missing(self) -> list[int]:
        """The chunks that are not there, or damaged. It reads the whole file."""
        sums = self._sums
        return [
            chunk
            for chunk in range(self.shape.chunks)
            if not sums[chunk] or _checksum(self.values[self.shape.rows(chunk)]) != sums[chunk]
        ]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """The context in which chunks are written. The file is on the disk at its end."""
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            yield Writer(descriptor, self.shape)
        finally:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@dataclass(frozen=True)
class Writer:
    """Writes chunks into an open file."""

    descriptor: int
    shape: Shape

    def put(self, chunk: int, values: np.ndarray) -> None:
        """Write the (b, views, F) float32 features of a chunk, then its checksum. Raises OSError."""
        vector = 4 * self.shape.views * self.shape.width
        _write(self.descriptor, values, self.shape.start + chunk * CHUNK * vector)
        _write(
            self.descriptor,
            np.array([_checksum(values)], np.uint64),
            _HEADER.size + 8 * chunk,
        )


def opened(path: Path, images: int, views: int) -> FeatureFile | None:
    """The file at a path, if it is there, whole in length and of so many images and views."""
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER.size)
            length = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    if len(header) < _HEADER.size:
        return None
    magic, *numbers = _HEADER.unpack(header)
    shape = Shape(*numbers)
    known = magic == _MAGIC and shape[:2] == (images, views) and length == shape.bytes
    return FeatureFile(path, shape) if known else None


def made(path: Path, shape: Shape) -> FeatureFile:
    """A new file in which every chunk is missing, in the place of what is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")  # who makes it holds the lock
    try:
        with open(temporary, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, shape.bytes)
            file.write(_HEADER.pack(_MAGIC, *shape))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return FeatureFile(path, shape)


def _write(descriptor: int, values: np.ndarray, position: int) -> None:
    data = np.ascontiguousarray(values).data.cast("B")
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written


def _checksum(values: np.ndarray) -> int:
    """The checksum of a chunk. It is never 0, which means that the chunk is not there."""
    return int(xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).data)) or 1
