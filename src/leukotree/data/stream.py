"""Batches from shards: those of the training order (see `order`), the exact pass for evaluation, and the
decoding threads.

Workers are threads. libjpeg-turbo and OpenCV release the interpreter lock, so workers write directly into the
batch that the device reads, and no data is copied between processes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from leukotree.data import geometry
from leukotree.data.cache import Cache
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.data.order import TrainOrder
from leukotree.data.remote import uses
from leukotree.data.remote.fetcher import Fetcher
from leukotree.data.samples import Samples
from leukotree.data.views import Views
from leukotree.errors import InputError

CHUNK = 8
"""Images in one task: enough that starting it costs little, few enough to divide a small batch."""


@dataclass(frozen=True)
class Batch:
    """One micro batch of a rank's share of a global batch."""

    images: torch.Tensor
    """(b, 3, H, W) uint8, channels last in memory. In training they are cropped, flipped and turned. Of a
    `FeatureLoader` (b, F) float32: features of the backbone."""
    rows: np.ndarray
    """(b,) rows of the dataset's index."""
    numbers: torch.Tensor | None = None
    """(b, len(augment.COLUMNS)) random numbers of the colour augmentation; None in evaluation."""


class Loader:
    """Decodes, crops and turns images of a data set ahead of use. A process has one for all models and folds.

    Args:
        workers: decoding threads; 0 decodes in the calling thread. The bits do not depend on it.
        cache: where decoded images are kept; None decodes each time. The bits do not depend on it.
        pin: use page-locked memory, so that the copy to the device overlaps with the device's work.
    """

    def __init__(
        self, dataset: Dataset, *, workers: int, cache: Cache | None = None, pin: bool = False
    ) -> None:
        self.dataset, self.cache, self.pin = dataset, cache, pin
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "decode") if workers else None
        self._buffers = threading.local()
        self._orders: list[uses.Training] = []

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads. Images that were decoded ahead are dropped."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def train(
        self, order: TrainOrder, steps: range, *, rank: int = 0, world: int = 1, micro: int | None = None
    ) -> Iterator[tuple[np.ndarray, list[Batch]]]:
        """Yield for each step the rows of the whole global batch, and this rank's micro batches of it.

        Decoding of the first steps starts at once.

        Args:
            micro: images per micro batch; None for the rank's whole share.
        """
        share = order.batch_size // world
        length = micro or share
        parts = [slice(start, start + length) for start in range(rank * share, (rank + 1) * share, length)]
        plan = ((batch.rows, [batch[part] for part in parts]) for batch in map(order.batch, steps))
        if (fetcher := self.dataset.fetcher) is None:
            return self._ahead(plan)
        store, size = fetcher.store, order.batch_size
        later = uses.Training(
            order.rows_of,
            len(order.rows),
            store.shard_of,
            len(store.names),
            steps.start * size,
            steps.stop * size,
        )
        self._orders.append(later)
        fetcher.follow(later, order.windows.width if order.windows else 1)
        return self._followed(self._ahead(plan), fetcher, later)

    def evaluate(
        self, rows: np.ndarray, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Yield every row exactly once over all ranks, without padding and augmentation.

        A rank may get no rows. Decoding starts at once.
        """
        share = rows[rank::world]
        parts = (share[start : start + batch_size] for start in range(0, len(share), batch_size))
        plan = ((part, [Samples(part)]) for part in parts)
        if (fetcher := self.dataset.fetcher) is None:
            return (batch for _, [batch] in self._ahead(plan))
        store = fetcher.store
        later = uses.Pass(store.shard_of[rows], len(store.names), self._to_epoch_end, world)
        fetcher.follow(later)
        return (batch for _, [batch] in self._followed(self._ahead(plan), fetcher, later))

    def see(self, parts: Sequence[np.ndarray], views: Views) -> Iterator[Batch]:
        """Yield for each part the batches of its rows in all views, one after the other from view 0 on.
        Decoding starts at once.

        Args:
            parts: (b,) rows each, this rank's share of a pass over the data that all ranks make.
        """
        last = views.count  # the shards of a part are needed until its last view
        plan = (
            (part if number == last else part[:0], [views.seen(part, number)])
            for part in parts
            for number in range(last + 1)
        )
        if (fetcher := self.dataset.fetcher) is None:
            return (batch for _, [batch] in self._ahead(plan))
        store, rows = fetcher.store, np.concatenate([np.zeros(0, np.int64), *parts])
        later = uses.Pass(store.shard_of[rows], len(store.names), self._to_epoch_end)
        fetcher.follow(later)
        return (batch for _, [batch] in self._followed(self._ahead(plan), fetcher, later))

    def _to_epoch_end(self) -> int:
        """Samples that are trained before an evaluation goes on."""
        return max((order.to_epoch_end() for order in self._orders), default=0)

    def _followed(
        self,
        batches: Iterator[tuple[np.ndarray, list[Batch]]],
        fetcher: Fetcher,
        later: uses.Training | uses.Pass,
    ) -> Iterator[tuple[np.ndarray, list[Batch]]]:
        """The batches. The fetcher is told how far they are; those decoded ahead are still needed."""
        try:
            for rows, batch in batches:
                later.position += len(rows) * (later.ranks if isinstance(later, uses.Pass) else 1)
                yield rows, batch
        finally:
            fetcher.forget(later)
            if isinstance(later, uses.Training):
                self._orders.remove(later)

    def _ahead(
        self, plan: Iterable[tuple[np.ndarray, list[Samples]]]
    ) -> Iterator[tuple[np.ndarray, list[Batch]]]:
        """Yield the plan's batches in its order, while the workers decode the next ones."""
        started = ((rows, [self._start(part) for part in parts]) for rows, parts in plan)
        if self._pool is None:
            return ((rows, [part() for part in parts]) for rows, parts in started)
        return _Ahead(started, self._workers * CHUNK)

    def _start(self, samples: Samples) -> _Pending:
        """Start a micro batch: give its images to the workers."""
        n, size = len(samples.rows), self.dataset.size
        pixels = torch.empty((n, size, size, 3), dtype=torch.uint8, pin_memory=self.pin)
        out = pixels.numpy()
        chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
        if self._pool is None:
            self._fill(samples, out)
            tasks = []
        else:
            tasks = [self._pool.submit(self._fill, samples[chunk], out[chunk]) for chunk in chunks]
        return _Pending(pixels, samples, tasks, self.pin)

    def _fill(self, samples: Samples, out: np.ndarray) -> None:
        """Decode (and crop) samples into `out`, (b, size, size, 3) uint8. Raises InputError."""
        buffers = self._buffers
        if not hasattr(buffers, "decoded"):
            buffers.decoded, buffers.scratch = np.empty_like(out[0]), np.empty_like(out[0])
        for position, row in enumerate(samples.rows.tolist()):
            target = out[position]
            if samples.crops is not None:
                image = self._image(row, buffers.decoded)
                geometry.apply(image, samples.crops[position], target, buffers.scratch)
            elif not np.may_share_memory(image := self._image(row, target), target):
                np.copyto(target, image)

    def _image(self, row: int, buffer: np.ndarray) -> np.ndarray:
        """Return a row's image, (size, size, 3) uint8, in the cache's memory or in `buffer`."""
        if self.cache is None:
            return decode(self.dataset, row, buffer)
        image = self.cache.get(row)
        if image is None:
            image = decode(self.dataset, row, buffer)
            self.cache.put(row, image)
        return image


@dataclass(frozen=True)
class _Pending:
    """A micro batch that is being filled. Calling it waits for the end, and returns the batch."""

    pixels: torch.Tensor
    samples: Samples
    tasks: list[Future[None]]
    pin: bool

    def __call__(self) -> Batch:
        for task in self.tasks:
            task.result()
        numbers = None if self.samples.numbers is None else torch.from_numpy(self.samples.numbers)
        if numbers is not None and self.pin:
            numbers = numbers.pin_memory()
        return Batch(self.pixels.permute(0, 3, 1, 2), self.samples.rows, numbers)


class _Ahead:
    """An iterator that keeps at least two batches, and at least `images` images, started ahead.

    An exception of a worker is raised when its batch is due.
    """

    def __init__(self, batches: Iterator[tuple[np.ndarray, list[_Pending]]], images: int) -> None:
        self._batches, self._images = batches, images
        self._started: deque[tuple[np.ndarray, list[_Pending]]] = deque()
        self._start_more()

    def _start_more(self) -> None:
        while len(self._started) < 2 or self._count() < self._images:
            batch: Any = next(self._batches, None)
            if batch is None:
                return
            self._started.append(batch)

    def _count(self) -> int:
        """Return the number of images that are started."""
        return sum(len(part.samples.rows) for _, parts in self._started for part in parts)

    def __iter__(self) -> _Ahead:
        return self

    def __next__(self) -> tuple[np.ndarray, list[Batch]]:
        if not self._started:
            raise StopIteration
        rows, parts = self._started.popleft()
        self._start_more()
        return rows, [part() for part in parts]


def decode(dataset: Dataset, row: int, buffer: np.ndarray | None = None) -> np.ndarray:
    """Return one sample as (size, size, 3) uint8 RGB, in `buffer` (an array of that shape) if one is given.

    Raises InputError naming the sample's key if its bytes are no JPEG of that size.
    """
    jpeg, size = dataset.read(row), dataset.size
    try:
        # Checked before memory is allocated: a decompression bomb has more pixels than memory holds.
        width, height = codec.extent(jpeg)
        if (width, height) != (size, size):
            problem = f"is {width}x{height}, not {size}x{size}"
            raise InputError(f"{_sample_name(dataset, row)} {problem}; pack the folder again")
        return codec.decode(jpeg, None if buffer is None else buffer.reshape(-1))
    except codec.BrokenImage as error:
        problem = f"does not decode: {error}"
        raise InputError(f"{_sample_name(dataset, row)} {problem}; pack the folder again") from error


def _sample_name(dataset: Dataset, row: int) -> str:
    return f"{dataset.name}: sample {dataset.index['key'].iloc[row]}"
