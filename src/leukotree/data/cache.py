"""Decoded images of a data set in one memory-mapped file, shared by all ranks and trials of a node.

It fills as images are decoded, so the first epoch fills it and nobody waits for it to be built. Each image
carries a checksum, written after its pixels: what a kill or a crash left half written is decoded again. The
file's space is reserved when it is made, so that a full disk is met there and not by a page fault in
training.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import xxhash

from leukotree import seeds
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError

GIGABYTE = 10**9
_HEADER = 16
"""Bytes before the checksums: MAGIC, and the number of images that have a place."""
_MAGIC = b"LTCACHE1"
_SUFFIX = ".pixels"
_FREE_SHARE = 0.5
"""Of the free space of the disk, at most this much is taken."""


class Cache:
    """The file of one data set, open for reading and adding. Safe for several threads, after fork, and among
    processes."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        """Map a file that `open_cache` made. Raises OSError."""
        self.path, self._side = path, dataset.size
        self._bytes = dataset.size * dataset.size * 3
        # A descriptor of its own per process is not needed: pread, pwrite and mappings carry no position.
        self._file = open(path, "r+b")  # noqa: SIM115 - held as long as the mapping
        fcntl.flock(self._file, fcntl.LOCK_SH)  # an eviction passes over files in use
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
        """(size, size, 3) uint8, read-only, of a row of the data set's index; None if it is not there, or
        damaged."""
        slot = self._slots[row]
        if slot < 0 or not (checksum := self._checksums[slot]):
            return None
        image: np.ndarray = self._pixels[slot]
        if not self._verified[slot]:  # once per process: the disk may have lied, memory does not
            if _checksum(image) != checksum:
                return None
            self._verified[slot] = True
        return image

    def put(self, row: int, image: np.ndarray) -> None:
        """Keep a decoded image (contiguous), if it has a place. Two processes that put the same row write the
        same bytes."""
        slot = int(self._slots[row])
        if slot < 0 or self._full:
            return
        try:
            os.pwrite(self._file.fileno(), image.data, self._start + slot * self._bytes)
            os.pwrite(self._file.fileno(), _checksum(image).to_bytes(8, sys.byteorder), _HEADER + 8 * slot)
        except OSError as error:  # some file systems reserve nothing
            self._full = True
            _say(f"{self.path}: {error.strerror}; further images are decoded each time")


def open_cache(folder: str | Path, dataset: Dataset, gigabytes: float) -> Cache | None:
    """The cache of a data set below `folder`, made if it is not there.

    At most `gigabytes` (10^9 bytes) and half of the free space are taken: caches of other data that nobody
    uses make room, and what then has no place is decoded each time. A disk that has no room at all, or is
    read-only, gives None and a line on stderr. Raises InputError if somebody else owns the place.
    """
    place = os.path.expandvars(folder)
    if "$" in place:
        _say(f"{place}: the variable is not set on this node; images are decoded each time")
        return None
    private = Path(place).expanduser() / f"leukotree-{os.getuid()}"
    name = hashlib.sha256(
        f"{dataset.fingerprint} {dataset.size} {simplejpeg.__version__}".encode()
    ).hexdigest()[:24]
    path = private / (name + _SUFFIX)
    try:
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private.is_symlink() or private.stat().st_uid != os.getuid():
            raise InputError(f"{private}: belongs to somebody else; name another folder for the cache")
        with _locked(private / ".lock"):
            if not _valid(path, dataset):
                _make(path, dataset, gigabytes)
            os.utime(path)  # when it was last wanted
            return Cache(path, dataset)
    except OSError as error:
        _say(f"{private}: {error.strerror or error}; images are decoded each time")
        return None


def _make(path: Path, dataset: Dataset, gigabytes: float) -> None:
    """Reserve the file and give it its name. Raises OSError if not even one image has room."""
    image = dataset.size * dataset.size * 3
    for stale in (
        path,
        *path.parent.glob("*.tmp"),
    ):  # a kill leaves the latter; nobody else is here, behind the lock
        stale.unlink(missing_ok=True)
    limit = gigabytes * GIGABYTE - _make_room(
        path.parent, gigabytes * GIGABYTE - _pixels_start(len(dataset)) - len(dataset) * image
    )
    room = min(limit, _FREE_SHARE * shutil.disk_usage(path.parent).free) - _pixels_start(len(dataset))
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
    """Remove the caches longest not wanted until the rest takes at most `wanted` bytes, if nobody uses them.
    The rest's bytes."""
    found = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in found)
    for path in found:
        if total <= max(wanted, 0):
            break
        with (
            contextlib.suppress(OSError),
            open(path, "r+b") as file,
        ):  # NFS locks exclusively only what is open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            total -= path.stat().st_size
            path.unlink()
    return total


def _valid(path: Path, dataset: Dataset) -> bool:
    """Whether the file is there and as long as its header says."""
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
    """Where the pixels begin: behind the checksums, at a page."""
    return -(-(_HEADER + 8 * capacity) // mmap.PAGESIZE) * mmap.PAGESIZE


def _slots(rows: int, capacity: int) -> np.ndarray:
    """(rows,) the place of each row, -1 for those without one. Where not all have one, chance picks them from
    all folds."""
    slots = seeds.generator(0, "cache").permutation(rows) if capacity < rows else np.arange(rows)
    return np.where(slots < capacity, slots, -1)


def _checksum(image: np.ndarray) -> int:
    """Never 0, which says that an image is not there."""
    return int(xxhash.xxh3_64_intdigest(image.data)) or 1


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(f"leukotree: cache {line}", file=sys.stderr)
