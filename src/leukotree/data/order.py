"""The infinite training order: which image is at each position, and how it is augmented there.

Sample number p is a function of (seed, p): it is in epoch p // n, at position p % n of that epoch's
permutation; with `data.order: window` one that keeps the samples of a few shards together. Its augmentation
is a function of (seed, epoch, image). Global batch t holds samples t*B .. (t+1)*B-1 for any number of ranks
and workers. So ranks never wait for uneven shards, and a resume continues at the next sample. Epochs are
counted in samples: after epoch e exactly e * n samples (rounded up to a batch) have been used, also when a
batch is larger than the training set.

An epoch of few images is one table. One of MANY images is made block by block, as it is used: the first batch
does not wait for ten million draws, and no rank holds them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from leukotree import seeds
from leukotree.data import augment, geometry
from leukotree.data.permutation import Permutation
from leukotree.data.samples import Samples
from leukotree.data.views import Views
from leukotree.spec import AugmentSpec

MANY = 2**20
"""Training images from which on an epoch is made in blocks."""
BLOCK = 2**16
"""Images of a block where no windows are."""


class TrainOrder:
    """The infinite order of a training set: the row at each position, and its augmentation there.

    Args:
        rows: (n,) rows of the dataset's index to train on.
        batch_size: samples in a global batch.
        seed: seed of the order and of the augmentation.
        augment: ranges of the augmentation.
        size: width and height of the images in pixels.
        among: (m,) rows with one order and one augmentation in each epoch, of which `rows` is a part. Orders
            of the same seed and the same `among` agree, whatever their `rows`. None: `rows`.
        windows: what keeps the samples of a few shards together; None permutes all of them.
        version: how numbers are drawn, see `seeds`. BY_STAGE: the augmentation belongs to the position in the
            order, not to the image, and `among` has no effect.
        views: fixed views of the images. None: each epoch draws a new one of each image.
    """

    def __init__(
        self,
        rows: np.ndarray,
        batch_size: int,
        seed: int,
        augment: AugmentSpec,
        size: int,
        among: np.ndarray | None = None,
        version: int = seeds.NEWEST,
        windows: Windows | None = None,
        views: Views | None = None,
    ) -> None:
        self.rows, self.batch_size, self.seed, self.augment, self.size = rows, batch_size, seed, augment, size
        self.windows, self.version, self.views = windows, version, views
        self.among = rows if among is None or version == seeds.BY_STAGE else among
        self.mine: np.ndarray | None = None
        """(m,) bool: which of `among` are in `rows`. None: all of them."""
        if len(self.among) > len(rows):
            marked = np.zeros(int(self.among.max()) + 1, dtype=bool)
            marked[rows] = True
            self.mine = marked[self.among]
        self._epochs: dict[int, _Epoch] = {}

    def steps_before(self, epoch: int) -> int:
        """Return how many steps the first `epoch` epochs take together."""
        return -(-epoch * len(self.rows) // self.batch_size)

    def batch(self, step: int) -> Samples:
        """Return the global batch of a step: B samples."""
        n, begin, end = len(self.rows), step * self.batch_size, (step + 1) * self.batch_size
        epochs = range(begin // n, (end - 1) // n + 1)
        # What an epoch has drawn is kept for all its steps.
        self._epochs = {epoch: self._epochs.get(epoch) or self._epoch(epoch) for epoch in epochs}
        parts = [
            drawn.samples(max(begin - epoch * n, 0), min(end - epoch * n, n))
            for epoch, drawn in self._epochs.items()
        ]
        return parts[0] if len(parts) == 1 else _concatenate(parts)

    def rows_of(self, epoch: int) -> np.ndarray:
        """(n,) the rows of an epoch in their order."""
        return self._epoch(epoch).all_rows()

    def _epoch(self, epoch: int) -> _Epoch:
        in_blocks = self.version >= seeds.IN_BLOCKS and len(self.among) >= MANY
        return _InBlocks(self, epoch) if in_blocks else _Table(self, epoch)


class _Epoch(Protocol):
    """One epoch of an order of n images."""

    def samples(self, start: int, stop: int) -> Samples:
        """The samples at the positions from `start` to `stop`."""

    def all_rows(self) -> np.ndarray:
        """(n,) the rows in their order."""


class _Table:
    """An epoch whose numbers are drawn at once."""

    def __init__(self, order: TrainOrder, epoch: int) -> None:
        self._order, self._number = order, epoch
        self._samples: Samples | None = None

    def samples(self, start: int, stop: int) -> Samples:
        if self._samples is None:
            self._samples = self._draw()
        return self._samples[start:stop]

    def all_rows(self) -> np.ndarray:
        return self._order.among[self._kept()]

    def _kept(self) -> np.ndarray:
        """(n,) positions in `among`, in the order of the epoch."""
        order, n = self._order, len(self._order.among)
        random = seeds.generator(order.seed, "order", self._number)
        places = random.permutation(n) if order.windows is None else order.windows.order(random, order.among)
        return places if order.mine is None else places[order.mine[places]]

    def _draw(self) -> Samples:
        order, n, kept = self._order, len(self._order.among), self._kept()
        if order.views is not None:
            return order.views.samples(order.among[kept], self._number)
        crops = geometry.draw(order.seed, self._number, n, order.size, order.augment)
        numbers = augment.draw(order.seed, self._number, n)
        if order.version == seeds.BY_STAGE:
            return Samples(order.among[kept], crops, numbers)
        return Samples(order.among[kept], crops[kept], numbers[kept])


class _InBlocks:
    """An epoch whose numbers are drawn when they are needed, a block of positions at a time.

    A block is a part of the order of `among`. Of it the images of `rows` are taken.
    """

    def __init__(self, order: TrainOrder, epoch: int) -> None:
        self._order, self._number = order, epoch
        self._blocks: _Blocks = (
            _Permuted(order, epoch) if order.windows is None else _Windowed(order, epoch, order.windows)
        )
        self._starts = self._blocks.starts.tolist() if order.mine is None else [0]
        """Position of the first sample of each block, as far as it is known, and the end of the last one."""
        self._drawn: dict[int, Samples] = {}

    def samples(self, start: int, stop: int) -> Samples:
        while self._starts[-1] < stop:
            self._starts.append(self._starts[-1] + len(self._rows(len(self._starts) - 1)[0]))
        first, last = bisect_right(self._starts, start) - 1, bisect_right(self._starts, stop - 1) - 1
        # The next batch begins where this one ends.
        self._drawn = {block: self._drawn.get(block) or self._draw(block) for block in range(first, last + 1)}
        parts = [
            drawn[max(start - self._starts[block], 0) : stop - self._starts[block]]
            for block, drawn in self._drawn.items()
        ]
        return parts[0] if len(parts) == 1 else _concatenate(parts)

    def all_rows(self) -> np.ndarray:
        return np.concatenate([self._rows(block)[0] for block in range(len(self._blocks.starts) - 1)])

    def _rows(self, block: int) -> tuple[np.ndarray, np.ndarray | slice]:
        """(k,) rows of a block, and which of its positions they have."""
        places, mine = self._blocks.places(block), self._order.mine
        kept: np.ndarray | slice = slice(None) if mine is None else mine[places]
        return self._order.among[places[kept]], kept

    def _draw(self, block: int) -> Samples:
        order, length = self._order, int(np.diff(self._blocks.starts)[block])
        rows, kept = self._rows(block)
        if order.views is not None:
            return order.views.samples(rows, self._number)
        crops = geometry.draw(order.seed, self._number, length, order.size, order.augment, block)
        numbers = augment.draw(order.seed, self._number, length, block)
        return Samples(rows, crops[kept], numbers[kept])


class _Blocks(Protocol):
    """The order of all m images of `among`, in K blocks."""

    starts: np.ndarray
    """(K + 1,) position of the first image of each block, and m."""

    def places(self, block: int) -> np.ndarray:
        """Positions in `among` of a block's images, in their order."""


class _Permuted:
    """All images permuted."""

    def __init__(self, order: TrainOrder, epoch: int) -> None:
        count = len(order.among)
        self.starts = np.append(np.arange(0, count, BLOCK), count)
        self._permutation = Permutation(count, seeds.generator(order.seed, "order", epoch))

    def places(self, block: int) -> np.ndarray:
        return self._permutation.at(np.arange(self.starts[block], self.starts[block + 1]))


class _Windowed:
    """A block is a window: the images of a few shards, permuted."""

    def __init__(self, order: TrainOrder, epoch: int, windows: Windows) -> None:
        self._seed, self._epoch = order.seed, epoch
        numbers = windows.shard_of[order.among]
        self._by_shard = None if (numbers[1:] >= numbers[:-1]).all() else np.argsort(numbers, kind="stable")
        if self._by_shard is not None:
            numbers = numbers[self._by_shard]
        first = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
        self._first = np.append(first, len(numbers))
        mixed = seeds.generator(order.seed, "order", epoch).permutation(len(first))
        self._shards = [mixed[start : start + windows.width] for start in range(0, len(first), windows.width)]
        lengths = np.diff(self._first)
        self.starts = np.append(0, np.cumsum([lengths[shards].sum() for shards in self._shards]))

    def places(self, block: int) -> np.ndarray:
        parts = [np.arange(self._first[shard], self._first[shard + 1]) for shard in self._shards[block]]
        # The number after the epoch keeps these numbers apart from those of the shards.
        random = seeds.generator(self._seed, "order", self._epoch, 1 + block)
        places = random.permutation(np.concatenate(parts))
        return places if self._by_shard is None else self._by_shard[places]


@dataclass(frozen=True)
class Windows:
    """Groups of shards. Those of an epoch are random; within one the samples are in random order."""

    shard_of: np.ndarray
    """(N,) the number of each index row's shard."""
    width: int
    """Shards in a group."""

    def order(self, random: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """(m,) a permutation of the positions of (m,) rows: group by group."""
        shards, numbers = np.unique(self.shard_of[rows], return_inverse=True)
        group = (random.permutation(len(shards)) // self.width)[numbers]
        mixed = random.permutation(len(rows))
        return mixed[np.argsort(group[mixed], kind="stable")]


def _concatenate(parts: list[Samples]) -> Samples:
    columns = ([getattr(part, name) for part in parts] for name in ("rows", "crops", "numbers", "views"))
    return Samples(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]
