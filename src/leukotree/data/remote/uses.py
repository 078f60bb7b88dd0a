"""When each shard of a data set is needed next, in samples of the training order, from now on.

The order of the samples is a function of the seed and the position, so all later uses of a shard are known.
Each process that trains publishes them in a file beside the shards: who needs room on the machine removes
first what all of them need last.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

FOLDER = ".uses"
NAMES = "names.txt"
"""File in FOLDER: the shards in the order of the published numbers."""


class Training:
    """The later uses of the shards in a training order.

    Args:
        rows_of: epoch -> (n,) rows of the index, in the order of training.
        shard_of: (N,) the number of the shard of each row of the index.
        shards: the number of shards.
        begin, end: positions in the whole order: samples of the first `begin` are done, those from `end` on
            are not trained.
    """

    def __init__(
        self,
        rows_of: Callable[[int], np.ndarray],
        epoch_length: int,
        shard_of: np.ndarray,
        shards: int,
        begin: int,
        end: int,
    ) -> None:
        self._rows_of, self._length, self._shard_of, self._shards = rows_of, epoch_length, shard_of, shards
        self.position, self._end = begin, end
        self._epochs: dict[int, np.ndarray] = {}

    def to_epoch_end(self) -> int:
        """Samples until the end of the current epoch."""
        return self._length - self.position % self._length

    def next_uses(self) -> np.ndarray:
        """(S,) float: samples until each shard is needed; infinite where it is not within this epoch and the
        next."""
        position = self.position
        epoch, within = divmod(position, self._length)
        last = (self._end - 1) // self._length
        self._epochs = {number: self._places(number) for number in range(epoch, min(epoch + 1, last) + 1)}
        uses = self._first(epoch, within) - within
        uses = np.minimum(uses, self._length - within + self._first(epoch + 1, 0))
        uses[uses + position >= self._end] = np.inf
        return uses

    def _places(self, epoch: int) -> np.ndarray:
        """(n,) int64, ascending: shard * n + position within the epoch."""
        known = self._epochs.get(epoch)
        if known is not None:
            return known
        numbers = self._shard_of[self._rows_of(epoch)].astype(np.int64)
        return np.sort(numbers * self._length + np.arange(self._length))

    def _first(self, epoch: int, start: int) -> np.ndarray:
        """(S,) float: the first position from `start` on within an epoch at which each shard is needed."""
        places = self._epochs.get(epoch, np.zeros(0, dtype=np.int64))
        shards = np.arange(self._shards, dtype=np.int64)
        found = np.searchsorted(places, shards * self._length + start)
        first = np.full(self._shards, np.inf)
        inside = found < len(places)
        hits = places[found[inside]]
        own = hits // self._length == shards[inside]
        first[np.flatnonzero(inside)[own]] = (hits % self._length)[own]
        return first


class Pass:
    """The later uses of the shards in one pass over some rows, such as an evaluation after an epoch.

    Args:
        numbers: (m,) the shard of each sample, in the order of the pass.
        begins_in: samples that are trained before it goes on.
        ranks: processes that share the pass.
    """

    def __init__(
        self, numbers: np.ndarray, shards: int, begins_in: Callable[[], int], ranks: int = 1
    ) -> None:
        self.ranks = ranks
        self._numbers, self._shards, self._begins_in = numbers, shards, begins_in
        self.position = 0

    def next_uses(self) -> np.ndarray:
        """(S,) float, as `Training.next_uses`."""
        uses = np.full(self._shards, np.inf)
        rest = self._numbers[self.position :]
        shards, first = np.unique(rest, return_index=True)
        uses[shards] = first + (0 if self.position else self._begins_in())
        return uses


Uses = Training | Pass


class Published:
    """The file in which this process says when it needs each shard. The system releases its lock however the
    process ends; a file without one is out of date."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        list_file = self._folder / NAMES
        if not list_file.exists():
            temporary = self._folder / f".{NAMES}.{os.getpid()}"
            temporary.write_text("\n".join(names))
            os.replace(temporary, list_file)
        self._path = self._folder / f"{uuid.uuid4().hex}.uses"  # pids of containers may be equal
        self._file = open(self._path, "w+b", buffering=0)  # noqa: SIM115 - held as long as this object
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def write(self, uses: np.ndarray) -> None:
        """Publish (S,) float numbers."""
        with contextlib.suppress(OSError):  # a full disk: the old numbers stay
            os.pwrite(self._file.fileno(), uses.astype(np.float64).tobytes(), 0)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        fcntl.flock(self._file, fcntl.LOCK_UN)  # a process that was forked meanwhile has it open, too
        self._file.close()


def of_all(folder: Path) -> dict[str, float]:
    """Shard -> samples until a process of this machine needs it, the least of all processes. Shards that none
    needs are left out."""
    place = folder / FOLDER
    try:
        names = (place / NAMES).read_text().split("\n")
    except OSError:
        return {}
    least = np.full(len(names), np.inf)
    for numbers in _living(place):
        if len(numbers) == len(least):
            least = np.minimum(least, numbers)
    return {names[number]: float(least[number]) for number in np.flatnonzero(np.isfinite(least))}


def _living(place: Path) -> Iterator[np.ndarray]:
    for path in place.glob("*.uses"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # its process lives
                content = file.read()
                yield np.frombuffer(content[: len(content) // 8 * 8], np.float64)
            else:
                path.unlink(missing_ok=True)
