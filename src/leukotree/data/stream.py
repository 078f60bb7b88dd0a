"""Batches from shards: a deterministic infinite training order, and an exact pass for evaluation.

Sample number p of a training stream is a function of (seed, p): epoch p // n, place p % n in that epoch's permutation.
Global batch t holds samples t*B .. (t+1)*B-1, whatever the ranks and workers, so ranks never wait for uneven shards
and a resume continues at the next sample. Epochs are counted in samples: after epoch e exactly e * n samples (rounded up to
a batch) have been seen, also when a batch is larger than the training set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from leukotree import seeds
from leukotree.data import augment, images
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch (a micro batch of it)."""

    images: torch.Tensor
    """(b, 3, H, W) uint8, channels last in memory."""
    rows: np.ndarray
    """(b,) rows of the dataset's index."""
    numbers: torch.Tensor | None = None
    """(b, 10) random numbers of the augmentation; None in evaluation."""


class TrainOrder:
    """The infinite order of a training set: which row stands at which position, and the random numbers it gets.

    Args:
        rows: (n,) rows of the dataset's index to train on.
        batch_size: global batch.
        seed: seeds the order and the augmentation.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def steps_before(self, epoch: int) -> int:
        """How many steps the first `epoch` epochs take together."""
        return -(-epoch * len(self.rows) // self.batch_size)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The global batch of a step: (B,) rows and (B, 10) random numbers."""
        epochs, places = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), len(self.rows))
        # A few rows of a permutation are wanted per call; the table of an epoch serves all its steps.
        self._tables = {epoch: self._tables.get(epoch) or self._table(epoch) for epoch in range(epochs[0], epochs[-1] + 1)}
        order = np.array([self._tables[e][0][p] for e, p in zip(epochs, places, strict=True)])
        numbers = np.stack([self._tables[e][1][p] for e, p in zip(epochs, places, strict=True)])
        return order, numbers

    def _table(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = seeds.generator(self.seed, "order", epoch).permutation(self.rows)
        return order, augment.draw(self.seed, epoch, len(self.rows))


class _Decoder(TorchDataset):
    """Rows -> one uint8 array, so that a worker sends one tensor per batch."""

    def __init__(self, dataset: Dataset, batches: Sequence[np.ndarray]) -> None:
        self.dataset, self.batches = dataset, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> torch.Tensor | str:
        """(b, size, size, 3) uint8; or what is wrong: an error that leaves a worker becomes a page of traceback."""
        rows = self.batches[position]
        size = self.dataset.size
        pixels = np.empty((len(rows), size, size, 3), dtype=np.uint8)
        try:
            for place, row in enumerate(rows):
                pixels[place] = decode(self.dataset, int(row))
        except InputError as error:
            return str(error)
        return torch.from_numpy(pixels)


def decode(dataset: Dataset, row: int) -> np.ndarray:
    """(size, size, 3) uint8 RGB of one sample. Raises InputError naming its key if the bytes are no JPEG of that size."""
    try:
        image = images.decode(dataset.read(row))
    except images.BrokenImage as error:
        raise InputError(f"{_named(dataset, row)} does not decode: {error}; pack the folder again") from error
    if image.shape != (dataset.size, dataset.size, 3):
        found = f"{image.shape[1]}x{image.shape[0]}"
        raise InputError(f"{_named(dataset, row)} is {found}, not {dataset.size}x{dataset.size}; pack the folder again")
    return image


def _named(dataset: Dataset, row: int) -> str:
    return f"{dataset.folder}: sample {dataset.index['key'].iloc[row]}"


def _load(dataset: Dataset, batches: Sequence[np.ndarray], workers: int, pin: bool) -> Iterator[torch.Tensor]:
    """(b, 3, H, W) uint8 tensors of the row batches, in order."""
    loader = DataLoader(
        _Decoder(dataset, batches), batch_size=None, num_workers=workers if len(batches) > 1 else 0, pin_memory=pin
    )
    for pixels in loader:
        if isinstance(pixels, str):
            raise InputError(pixels)
        yield pixels.permute(0, 3, 1, 2)


def train_batches(
    dataset: Dataset,
    order: TrainOrder,
    steps: range,
    *,
    rank: int = 0,
    world: int = 1,
    micro: int | None = None,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[tuple[np.ndarray, list[Batch]]]:
    """For each step: the rows of the whole global batch, and this rank's micro batches of it.

    Args:
        steps: which steps of the order to give.
        micro: images per micro batch; None for the rank's whole share.
        workers: decoding processes; 0 decodes in this one. The bits do not depend on it.
        pin: page-locked memory, for a copy that overlaps with the device's work.
    """
    share = order.batch_size // world
    micro = micro or share
    plan = [order.batch(step) for step in steps]
    cuts = [slice(start, start + micro) for start in range(rank * share, (rank + 1) * share, micro)]
    loaded = _load(dataset, [rows[cut] for rows, _ in plan for cut in cuts], workers, pin)
    for rows, numbers in plan:
        yield rows, [Batch(next(loaded), rows[cut], torch.from_numpy(numbers[cut])) for cut in cuts]


def eval_batches(
    dataset: Dataset, rows: np.ndarray, batch_size: int, *, rank: int = 0, world: int = 1, workers: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """Every row exactly once over all ranks, without padding; a rank may have none."""
    mine = rows[rank::world]
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    for part, pixels in zip(batches, _load(dataset, batches, workers, pin), strict=True):
        yield Batch(pixels, part)
