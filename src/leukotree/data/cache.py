"""A cache of a data set's decoded images: one memory-mapped file, shared by all ranks and trials of a node.

The first epoch fills the cache while it decodes, so there is no separate step to build it. Each image has a
checksum, written after its pixels. An image that a kill or a crash left half written is decoded again. The
file's space is reserved when it is made, so a full disk is an error then, not a page fault in training.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import simplejpeg
import xxhash

from leukotree import files, seeds
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.log import logger

GIGABYTE = 10**9
_HEADER = 16
"""Bytes before the checksums: MAGIC, and the number of images that have a slot."""
_MAGIC = b"LTCACHE1"
_SUFFIX = ".pixels"
_FREE_SHARE = 0.5
"""Largest share of the disk's free space that a cache takes."""


class Cache:
    """The open cache of one data set. Safe for several threads, after fork, and among processes."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        """Map a file that `open_cache` made. Raises OSError."""
        self.path, self._side = path, dataset.size
        self._bytes = dataset.size * dataset.size * 3
        # Processes may share a descriptor: pread, pwrite and mappings use no position.
        self._file = open(path, "r+b")  # noqa: SIM115 - held as long as the mapping
        fcntl.flock(self._file, fcntl.LOCK_SH)  # `_make_room` removes no file that is in use
        self.capacity = _capacity(self._file.read(_HEADER))
        self._start = _pixels_start(self.capacity)
        self._map = mmap.mmap(
            self._file.fileno(), self._start + self.capacity * self._bytes, prot=mmap.PROT_READ
        )
        shape = (self.capacity, self._side, self._side, 3)
        self._pixels: np.ndarray = np.ndarray(shape, np.uint8, self._map, self._start)
        self._checksums: np.ndarray = np.ndarray(self.capacity, np.uint64, self._map, _HEADER)
        self._slots = _slots(len(dataset), self.capacity)
        self._verified = np.zeros(self.capacity, dtype=bool)
        self._full = False

    def get(self, row: int) -> np.ndarray | None:
        """Return the image of an index row, (size, size, 3) uint8, read-only; None if absent or damaged."""
        slot = self._slots[row]
        if slot < 0 or not (checksum := self._checksums[slot]):
            return None
        image: np.ndarray = self._pixels[slot]
        if not self._verified[slot]:  # once per process: the disk may be damaged, memory is not
            if _checksum(image) != checksum:
                return None
            self._verified[slot] = True
        return image

    def put(self, row: int, image: np.ndarray) -> None:
        """Store a decoded image (contiguous) if it has a slot.

        Two processes that store the same row write the same bytes.
        """
        slot = int(self._slots[row])
        if slot < 0 or self._full:
            return
        try:
            os.pwrite(self._file.fileno(), image.data, self._start + slot * self._bytes)
            os.pwrite(self._file.fileno(), _checksum(image).to_bytes(8, sys.byteorder), _HEADER + 8 * slot)
        except OSError as error:  # some file systems reserve no space
            self._full = True
            _warn(f"{self.path}: {error.strerror}; further images are decoded each time")


def open_cache(folder: str | Path, dataset: Dataset, gigabytes: float) -> Cache | None:
    """Return the cache of a data set below `folder`; it is made if there is none.

    It takes at most `gigabytes` (10^9 bytes) and half of the free space. Caches of other data that are not in
    use are removed to make room. Images that then have no slot are decoded each time. If the disk has no room
    at all, or is read-only, the result is None, with a line on stderr.

    Raises InputError if the folder belongs to another user.
    """
    place = os.path.expandvars(folder)
    if "$" in place:
        _warn(f"{place}: the variable is not set on this node; images are decoded each time")
        return None
    private = Path(place).expanduser() / f"leukotree-{os.getuid()}"
    identity = f"{dataset.samples} {dataset.size} {simplejpeg.__version__}"
    path = private / (hashlib.sha256(identity.encode()).hexdigest()[:24] + _SUFFIX)
    try:
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private.is_symlink() or private.stat().st_uid != os.getuid():
            raise InputError(f"{private}: belongs to another user; name another folder for the cache")
        with files.waited_lock(private / ".lock"):
            if not _valid(path, dataset):
                _make(path, dataset, gigabytes)
            os.utime(path)  # the time of its last use, for `_make_room`
            return Cache(path, dataset)
    except OSError as error:
        _warn(f"{private}: {error.strerror or error}; images are decoded each time")
        return None


def _make(path: Path, dataset: Dataset, gigabytes: float) -> None:
    """Make the file and reserve its space. Raises OSError if there is no room for one image."""
    image, header = dataset.size * dataset.size * 3, _pixels_start(len(dataset))
    # A kill leaves temporary files. No other process makes one now, because of the lock.
    for stale in (path, *path.parent.glob("*.tmp")):
        stale.unlink(missing_ok=True)
    allowed = gigabytes * GIGABYTE
    others = _make_room(path.parent, allowed - header - len(dataset) * image)
    room = min(allowed - others, _FREE_SHARE * shutil.disk_usage(path.parent).free) - header
    capacity = min(len(dataset), int(room // image))
    if capacity < 1:
        raise OSError(f"no room for one image within {gigabytes:g} GB and half of the free space")
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "w+b") as file:
            os.posix_fallocate(file.fileno(), 0, _pixels_start(capacity) + capacity * image)
            file.write(_MAGIC + capacity.to_bytes(8, sys.byteorder))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(folder: Path, wanted: float) -> int:
    """Remove caches that are not in use until the others take at most `wanted` bytes; return their bytes.

    The caches that were used longest ago are removed first.
    """
    caches = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in caches)
    for path in caches:
        if total <= max(wanted, 0):
            break
        # Open for writing, since NFS refuses an exclusive lock otherwise.
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            total -= path.stat().st_size
            path.unlink()
    return total


def _valid(path: Path, dataset: Dataset) -> bool:
    """Return whether the file exists and is as long as its header says."""
    try:
        with open(path, "rb") as file:
            capacity = _capacity(file.read(_HEADER))
    except (FileNotFoundError, ValueError):
        return False
    return path.stat().st_size == _pixels_start(capacity) + capacity * dataset.size * dataset.size * 3


def _capacity(header: bytes) -> int:
    if len(header) != _HEADER or not header.startswith(_MAGIC):
        raise ValueError("no cache of this version")
    return int.from_bytes(header[len(_MAGIC) :], sys.byteorder)


def _pixels_start(capacity: int) -> int:
    """Return the position of the pixels: after the checksums, at the start of a memory page."""
    return -(-(_HEADER + 8 * capacity) // mmap.PAGESIZE) * mmap.PAGESIZE


def _slots(rows: int, capacity: int) -> np.ndarray:
    """Return the slot of each row, (rows,) int32, -1 for none.

    If there are fewer slots than rows, the rows with a slot are random, so that they come from all folds.
    """
    slots = seeds.generator(0, "cache").permutation(rows) if capacity < rows else np.arange(rows)
    return np.where(slots < capacity, slots, -1).astype(np.int32)


def _checksum(image: np.ndarray) -> int:
    """Return the checksum of an image. It is never 0, which means that there is no image."""
    return int(xxhash.xxh3_64_intdigest(image.data)) or 1


def _warn(text: str) -> None:
    logger.warning(f"cache {text}")
