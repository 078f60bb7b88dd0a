"""Batches from shards: a deterministic infinite training order, an exact pass for evaluation, and the threads
that decode.

Sample number p of a training stream is a function of (seed, p): epoch p // n, place p % n in that epoch's
permutation. Global batch t holds samples t*B .. (t+1)*B-1, whatever the ranks and workers, so ranks never
wait for uneven shards and a resume continues at the next sample. Epochs are counted in samples: after epoch e
exactly e * n samples (rounded up to a batch) have been seen, also when a batch is larger than the training
set.

Workers are threads: libjpeg-turbo and OpenCV release the interpreter lock, so they write straight into the
batch that the device will read, and nothing travels through a pipe.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from leukotree import seeds
from leukotree.data import augment, geometry
from leukotree.data.cache import Cache
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.errors import InputError
from leukotree.spec import AugmentSpec

CHUNK = 8
"""Images of one task: enough that handing it over costs nothing, few enough that all workers share a small
batch."""


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch (a micro batch of it)."""

    images: torch.Tensor
    """(b, 3, H, W) uint8, channels last in memory; in training cropped, flipped and turned."""
    rows: np.ndarray
    """(b,) rows of the dataset's index."""
    numbers: torch.Tensor | None = None
    """(b, len(augment.COLUMNS)) random numbers of the colour augmentation; None in evaluation."""


@dataclass(frozen=True)
class Samples:
    """Some samples of the training order."""

    rows: np.ndarray
    """(b,) rows of the dataset's index."""
    crops: np.ndarray | None = None
    """(b, 5) rows of `geometry.draw`; None leaves the images as they are."""
    numbers: np.ndarray | None = None
    """(b, C) rows of `augment.draw`."""

    def __getitem__(self, part: slice | np.ndarray) -> Samples:
        crops, numbers = (None if column is None else column[part] for column in (self.crops, self.numbers))
        return Samples(self.rows[part], crops, numbers)


class TrainOrder:
    """The infinite order of a training set: which row stands at which position, and how it is augmented
    there.

    Args:
        rows: (n,) rows of the dataset's index to train on.
        batch_size: global batch.
        seed: seeds the order and the augmentation.
        augment: ranges of the augmentation.
        size: width and height of the images in pixels.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int, augment: AugmentSpec, size: int) -> None:
        self.rows, self.batch_size, self.seed, self.augment, self.size = rows, batch_size, seed, augment, size
        self._epochs: dict[int, Samples] = {}

    def steps_before(self, epoch: int) -> int:
        """How many steps the first `epoch` epochs take together."""
        return -(-epoch * len(self.rows) // self.batch_size)

    def batch(self, step: int) -> Samples:
        """The global batch of a step: B samples."""
        epochs, places = np.divmod(
            np.arange(step * self.batch_size, (step + 1) * self.batch_size), len(self.rows)
        )
        # The tables of an epoch serve all its steps.
        self._epochs = {
            epoch: self._epochs.get(epoch) or self._epoch(epoch) for epoch in range(epochs[0], epochs[-1] + 1)
        }
        parts = [samples[places[epochs == epoch]] for epoch, samples in self._epochs.items()]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _epoch(self, epoch: int) -> Samples:
        n = len(self.rows)
        order = seeds.generator(self.seed, "order", epoch).permutation(self.rows)
        crops = geometry.draw(self.seed, epoch, n, self.size, self.augment)
        return Samples(order, crops, augment.draw(self.seed, epoch, n))


def _joined(parts: list[Samples]) -> Samples:
    rows, crops, numbers = ([getattr(part, name) for part in parts] for name in ("rows", "crops", "numbers"))
    return Samples(np.concatenate(rows), np.concatenate(crops), np.concatenate(numbers))


class Loader:
    """Decodes, crops and turns images of a data set, ahead of those who ask. One per process, for all its
    models and folds.

    Args:
        workers: decoding threads; 0 decodes in the calling thread, when asked. The bits do not depend on it.
        cache: where decoded images are kept; None decodes each time. The bits do not depend on it.
        pin: page-locked memory, for a copy that overlaps with the device's work.
    """

    def __init__(
        self, dataset: Dataset, *, workers: int, cache: Cache | None = None, pin: bool = False
    ) -> None:
        self.dataset, self.cache, self.pin = dataset, cache, pin
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "decode") if workers else None
        self._buffers = threading.local()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; what was decoded ahead is dropped."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def train(
        self, order: TrainOrder, steps: range, *, rank: int = 0, world: int = 1, micro: int | None = None
    ) -> Iterator[tuple[np.ndarray, list[Batch]]]:
        """For each step: the rows of the whole global batch, and this rank's micro batches of it.

        `micro` is the images per micro batch, None for the rank's whole share. The first steps are decoded
        from now on.
        """
        share = order.batch_size // world
        cuts = [
            slice(start, start + (micro or share))
            for start in range(rank * share, (rank + 1) * share, micro or share)
        ]
        plan = ((whole.rows, [whole[cut] for cut in cuts]) for whole in map(order.batch, steps))
        return self._ahead(plan)

    def evaluate(
        self, rows: np.ndarray, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Every row exactly once over all ranks, without padding, as they are; a rank may have none. Decoded
        from now on."""
        mine = rows[rank::world]
        plan = (
            (part, [Samples(part)])
            for part in (mine[at : at + batch_size] for at in range(0, len(mine), batch_size))
        )
        return (batch for _, [batch] in self._ahead(plan))

    def _ahead(
        self, plan: Iterable[tuple[np.ndarray, list[Samples]]]
    ) -> Iterator[tuple[np.ndarray, list[Batch]]]:
        """The plan's batches in its order, the next ones under way."""
        if self._pool is None:
            return ((rows, [self._start(part)() for part in parts]) for rows, parts in plan)
        return _Ahead(
            ((rows, [self._start(part) for part in parts]) for rows, parts in plan), self._workers * CHUNK
        )

    def _start(self, samples: Samples) -> _Pending:
        """Hand a micro batch to the workers."""
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
        """Decode (and crop) samples into (b, size, size, 3) uint8. Raises InputError."""
        buffers = self._buffers
        if not hasattr(buffers, "decoded"):
            buffers.decoded, buffers.scratch = np.empty_like(out[0]), np.empty_like(out[0])
        for place, row in enumerate(samples.rows.tolist()):
            if samples.crops is not None:
                geometry.apply(
                    self._image(row, buffers.decoded), samples.crops[place], out[place], buffers.scratch
                )
            elif not np.may_share_memory(image := self._image(row, out[place]), out[place]):
                np.copyto(out[place], image)

    def _image(self, row: int, buffer: np.ndarray) -> np.ndarray:
        """(size, size, 3) uint8 of a row, in the cache's memory or in `buffer`."""
        if self.cache is None:
            return decode(self.dataset, row, buffer)
        if (found := self.cache.get(row)) is None:
            found = decode(self.dataset, row, buffer)
            self.cache.put(row, found)
        return found


@dataclass(frozen=True)
class _Pending:
    """A micro batch that is being filled; calling it waits for that."""

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
    """Keeps at least two batches, and at least `images` images, under way; an exception of a worker is raised
    in its place."""

    def __init__(self, started: Iterator[tuple[np.ndarray, list[_Pending]]], images: int) -> None:
        self._started, self._images = started, images
        self._waiting: deque[tuple[np.ndarray, list[_Pending]]] = deque()
        self._fill_up()

    def _fill_up(self) -> None:
        while (
            len(self._waiting) < 2
            or sum(len(p.samples.rows) for _, parts in self._waiting for p in parts) < self._images
        ):
            following: Any = next(self._started, None)
            if following is None:
                return
            self._waiting.append(following)

    def __iter__(self) -> _Ahead:
        return self

    def __next__(self) -> tuple[np.ndarray, list[Batch]]:
        if not self._waiting:
            raise StopIteration
        rows, parts = self._waiting.popleft()
        self._fill_up()
        return rows, [part() for part in parts]


def decode(dataset: Dataset, row: int, buffer: np.ndarray | None = None) -> np.ndarray:
    """(size, size, 3) uint8 RGB of one sample, in `buffer` (an array of that shape) if one is given. Raises
    InputError naming its key if the bytes are no JPEG of that size."""
    jpeg = dataset.read(row)
    try:
        # Before anything is allocated: the header of a decompression bomb names more pixels than memory
        # holds.
        width, height = codec.extent(jpeg)
        if (width, height) != (dataset.size, dataset.size):
            found = f"{width}x{height}"
            raise InputError(
                f"{_named(dataset, row)} is {found}, not {dataset.size}x{dataset.size}; pack the folder again"
            )
        return codec.decode(jpeg, None if buffer is None else buffer.reshape(-1))
    except codec.BrokenImage as error:
        raise InputError(f"{_named(dataset, row)} does not decode: {error}; pack the folder again") from error


def _named(dataset: Dataset, row: int) -> str:
    return f"{dataset.folder}: sample {dataset.index['key'].iloc[row]}"
