"""The shards of a data set in a folder of this machine: fetched once for all its processes, within a limit.

A lock file for each shard says who fetches it. Another process that wants it waits, and takes over when the
first one has died. A shard gets its name when all of its samples are those of the index. Room is counted over
all data sets: a shard that is on its way has the room reserved that it needs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree import files
from leukotree.data import tarheader
from leukotree.data.remote import scratch, transfer, uses
from leukotree.data.remote.address import Address
from leukotree.data.shards import MAX_FIELDS
from leukotree.errors import InputError, RunFailed

PARTIAL = ".part"
"""Ending of a shard that is on its way."""
_LOCKS, _ROOM = ".locks", ".room"
_NEVER = float("inf")


@dataclass(frozen=True)
class _Samples:
    """What a shard must hold, by the index."""

    keys: list[str]
    offsets: list[int]
    lengths: list[int]
    digests: list[str]

    @property
    def end(self) -> int:
        """Bytes of the shard at least: the end of its last image."""
        return max(map(int.__add__, self.offsets, self.lengths))


class Store:
    """The shards of one data set on this machine.

    Args:
        folder: its folder, with the description and the index.
        address: where the shards come from.
        index: with the columns shard, key, offset, length and sha256.
        shard_of: (N,) the number of each sample's shard, counted in the order of the index.
    """

    def __init__(self, folder: Path, address: Address, index: pd.DataFrame, shard_of: np.ndarray) -> None:
        self.folder, self.address, self.shard_of = folder, address, shard_of
        first = np.flatnonzero(np.diff(np.maximum.accumulate(shard_of), prepend=-1))
        self.names = [str(index["shard"].iloc[row]) for row in first.tolist()]
        self.number = {name: number for number, name in enumerate(self.names)}
        self._index = index
        ordered = (shard_of[1:] >= shard_of[:-1]).all()  # as `pack` writes the index
        self._order = None if ordered else np.argsort(shard_of, kind="stable")
        in_order = shard_of if self._order is None else shard_of[self._order]
        self._starts = np.searchsorted(in_order, np.arange(len(first) + 1))
        self._here: set[str] = set()
        self._state = -1
        (folder / _LOCKS).mkdir(mode=0o700, exist_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / name

    def present(self) -> set[str]:
        """The shards that are here."""
        state = os.stat(self.folder).st_mtime_ns
        # Times of files have steps of some milliseconds: what changes within one is not seen.
        if state != self._state or time.time_ns() - state < 10**8:
            with os.scandir(self.folder) as entries:
                self._here = {entry.name for entry in entries if entry.name in self.number}
            self._state = state
        return self._here

    def size(self, name: str) -> int:
        """Bytes of a shard, about: up to its last image, and what follows that, in whole records."""
        return (
            -(-(self._samples(name).end + 6 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        )

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """The context in which this process alone may fetch or remove a shard. Yields False, and has no
        effect, where another one may."""
        with lock(_lock_file(self.path(name))) as mine:
            yield mine

    def fetch(self, name: str, needed_in: float, tell: transfer.Tell, may_remove: bool = True) -> bool:
        """Fetch a shard that this process has claimed. False where there is no room for it, since all shards
        that are here are needed sooner.

        Args:
            needed_in: samples until it is needed; below 0 it is needed now.
            may_remove: whether others that are needed later may be removed for it.

        Raises as `transfer.download`, and InputError where the server has other bytes than the index says.
        """
        partial = self.folder / f"{name}{PARTIAL}"
        partial.unlink(missing_ok=True)  # of a process that has died
        if not _reserve(partial, self.size(name), needed_in if may_remove else _NEVER):
            return False
        samples = self._samples(name)
        most = samples.end + MAX_FIELDS + 2 * tarfile.RECORDSIZE
        try:
            for last in (False, True):
                with open(partial, "r+b") as file:
                    transfer.download(self.address, name, file, most, tell=tell)
                    problem = _fault(file.fileno(), samples)
                if not problem:
                    break
                if last:  # the first time it may have been damaged on the way, or changed in between
                    raise InputError(
                        f"{self.address.file(name)}: {problem}; the server has other bytes than the index "
                        "says, so remove it there and upload the packed folder again"
                    )
            os.replace(partial, self.path(name))
        except OSError as error:
            if files.is_full(error):
                raise _full(partial) from error
            raise
        except transfer.NotThere as error:
            raise InputError(
                f"{self.address.file(name)}: {error}; the index names this shard, so upload the packed "
                "folder again"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        return True

    def _samples(self, name: str) -> _Samples:
        number = self.number[name]
        part = slice(self._starts[number], self._starts[number + 1])
        rows = self._index.iloc[part if self._order is None else self._order[part]]
        return _Samples(*(rows[column].tolist() for column in ("key", "offset", "length", "sha256")))


@contextlib.contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Hold a lock file. Yields whether this process has it: it does not wait. The system releases it however
    the process ends."""
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open, too


def _fault(descriptor: int, samples: _Samples) -> str:
    """What is wrong with a shard, "" if it holds all samples of the index at their places."""
    for key, offset, length, digest in zip(
        samples.keys, samples.offsets, samples.lengths, samples.digests, strict=True
    ):
        header = os.pread(descriptor, tarfile.BLOCKSIZE, offset - tarfile.BLOCKSIZE)
        data = os.pread(descriptor, length, offset)
        if not tarheader.names(header, f"{key}.jpg") or hashlib.sha256(data).hexdigest() != digest:
            return f"sample {key}: " + (
                tarheader.fault(header, f"{key}.jpg", length) or "its sha256 is another one"
            )
    return ""


def _reserve(partial: Path, size: int, needed_in: float) -> bool:
    """Make a file of this size, after room was made for it. False where there is none. Raises InputError for
    a shard that is larger than the limit, and RunFailed for a full disk."""
    root = partial.parent.parent
    with open(root / _ROOM, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            here = _shards(root)
            used = sum(here.values())
            limit = scratch.limit(used)
            if size > limit:
                raise InputError(
                    f"{root}: a shard has {size / 1e6:.1f} MB, and all shards may have {limit / 1e6:.1f} MB "
                    "there; give more with --cache-gb, or another folder with --cache"
                )
            if used + size > limit and not _make_room(root, here, used + size - limit, needed_in):
                return False
            _allocate(partial, size)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # as in `lock`
    return True


def _allocate(partial: Path, size: int) -> None:
    with open(partial, "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if files.is_full(error):
                raise _full(partial) from error
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that reserves no space
                raise


def _full(path: Path) -> RunFailed:
    return RunFailed(f"{path}: the disk is full; give the shards less room with --cache-gb", "disk")


def _shards(root: Path) -> dict[Path, int]:
    """The shards of all data sets on this machine, also those on their way, and their sizes in bytes."""
    sizes = {}
    for path in root.glob("*/fold*.tar*"):
        with contextlib.suppress(OSError):
            sizes[path] = path.stat().st_size
    return sizes


def _make_room(root: Path, here: dict[Path, int], wanted: int, needed_in: float) -> bool:
    """Remove the shards that are needed last, at least `wanted` bytes of them, or none. Only those go that
    are needed later than in `needed_in` samples."""
    next_use = {}
    for folder in {path.parent for path in here}:
        known = uses.of_all(folder)
        next_use.update({path: known.get(path.name, _NEVER) for path in here if path.parent == folder})
    last = sorted(here, key=lambda path: (next_use[path], -_made(path)), reverse=True)
    with contextlib.ExitStack() as stack:
        victims: list[Path] = []
        for path in last:
            if wanted <= 0 or next_use[path] <= needed_in:
                break
            if stack.enter_context(lock(_lock_file(path))):
                victims.append(path)
                wanted -= here[path]
        if wanted > 0:
            return False
        for path in victims:
            path.unlink(missing_ok=True)
    return True


def _lock_file(path: Path) -> Path:
    """The lock file of a shard, also of one on its way."""
    return path.parent / _LOCKS / path.name.partition(".")[0]


def _made(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
