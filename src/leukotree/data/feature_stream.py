"""Batches of stored features, in the order in which `stream` gives batches of images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from leukotree.data.dataset import Dataset
from leukotree.data.featurefile import FeatureFile
from leukotree.data.order import TrainOrder
from leukotree.data.stream import Batch


class FeatureLoader:
    """Takes the place of `stream.Loader` where the features of all images are stored.

    Args:
        pin: as for `stream.Loader`.
    """

    def __init__(self, dataset: Dataset, features: FeatureFile, *, pin: bool = False) -> None:
        self.dataset, self.features, self.pin = dataset, features, pin

    @property
    def width(self) -> int:
        """F, the numbers of a feature vector."""
        return self.features.shape.width

    def train(
        self, order: TrainOrder, steps: range, *, rank: int = 0, world: int = 1, micro: int | None = None
    ) -> Iterator[tuple[np.ndarray, list[Batch]]]:
        """As `stream.Loader.train`; `images` of a batch are the (b, F) float32 features of its views."""
        share = order.batch_size // world
        length = micro or share
        starts = range(rank * share, (rank + 1) * share, length)
        for step in steps:
            batch = order.batch(step)
            parts = [batch[start : start + length] for start in starts]
            yield batch.rows, [self._batch(part.rows, part.views) for part in parts]

    def evaluate(
        self, rows: np.ndarray, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """As `stream.Loader.evaluate`; `images` of a batch are (b, F) float32 features."""
        share = rows[rank::world]
        for start in range(0, len(share), batch_size):
            yield self._batch(share[start : start + batch_size], None)

    def _batch(self, rows: np.ndarray, views: np.ndarray | None) -> Batch:
        features = torch.from_numpy(self.features.take(rows, views))
        return Batch(features.pin_memory() if self.pin else features, rows)
