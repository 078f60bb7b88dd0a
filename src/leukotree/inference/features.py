"""The features of images by the frozen backbones of runs: computed once for all runs of a command."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from leukotree import signals
from leukotree.data.featurefile import CHUNK
from leukotree.inference import images as prepared_images
from leukotree.inference.frozen import Frozen
from leukotree.inference.images import Images
from leukotree.inference.loaded import LoadedRun
from leukotree.training.features import found


class Features:
    """The features of N images, each computed once for the runs that ask for it one after another. Those of
    one backbone are kept, in memory.

    An image of the runs' data set has the features that are stored for training: it was scored with these
    bits.

    Args:
        workers: decoding threads.
        known: (N,) as `Known.row`; None where no image is in the data set.
    """

    def __init__(self, images: Images, workers: int, known: np.ndarray | None = None) -> None:
        self._images, self._workers = images, workers
        self._known = np.full(len(images.table), -1, dtype=np.int64) if known is None else known
        self._of: tuple[Frozen, str] | None = None
        self._there = np.zeros(0, dtype=bool)
        self._values = np.zeros((0, 0), dtype=np.float32)

    def of(self, run: LoadedRun, rows: np.ndarray, done: Callable[[int], None]) -> np.ndarray:
        """(n, F) float32 features of (n,) rows by the backbone of a run. `done` is called with numbers of
        images that are ready.

        Raises Preempted between two chunks when it is asked to stop."""
        assert run.frozen is not None
        if self._of != (run.frozen, run.spec.engine.precision):
            self._of = run.frozen, run.spec.engine.precision
            self._there = np.zeros(len(self._images.table), dtype=bool)
            self._values = np.empty((len(self._there), run.frozen.width), dtype=np.float32)
        self._take_stored(run, rows[~self._there[rows]])
        missing = rows[~self._there[rows]]
        for chunk, pixels in prepared_images.batches(self._images, missing, CHUNK, self._workers):
            signals.stop_if_requested(f"{run.folder.name} has not predicted all images")
            self._values[chunk] = run.features(pixels)
            self._there[chunk] = True
            done(len(chunk))
        done(len(rows) - len(missing))
        return self._values[rows]

    def _take_stored(self, run: LoadedRun, rows: np.ndarray) -> None:
        known = rows[self._known[rows] >= 0]
        if len(known) and (file := found(run.spec, run.folder.parents[:2], run.engine.device.type)):
            self._values[known] = file.take(self._known[known], None)
            self._there[known] = True
