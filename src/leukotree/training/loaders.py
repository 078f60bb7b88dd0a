"""The loaders of a process: one for all runs and stages that have the same data."""

from __future__ import annotations

import contextlib
from pathlib import Path

from leukotree.data.dataset import Dataset
from leukotree.data.feature_stream import FeatureLoader
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.runtime import Runtime
from leukotree.training import features
from leukotree.training.pixels import open_loader
from leukotree.training.plan import Plan


class Loaders:
    """Gives each run its loader. Its threads share the cores of the machine.

    Args:
        root: the folder of the runs.
        stack: closes the loaders.
    """

    def __init__(self, root: Path, engine: Engine, runtime: Runtime, stack: contextlib.ExitStack) -> None:
        self._root, self._engine, self._runtime, self._stack = root, engine, runtime, stack
        self._pixels: dict[object, Loader] = {}
        self._features: dict[object, FeatureLoader] = {}

    def of(self, plan: Plan) -> Loader | FeatureLoader:
        """The loader of a run. It computes features that are not stored, see `features.stored`."""
        if not (plan.spec.on_features and self._runtime.store_features):
            return self._of_pixels(plan.dataset)
        place = _place(plan.dataset), features.key(plan, self._engine.device.type)
        if place not in self._features:
            file = features.stored(plan, self._root, self._engine, self._runtime)
            self._features[place] = FeatureLoader(plan.dataset, file, pin=self._engine.pin)
        return self._features[place]

    def _of_pixels(self, dataset: Dataset) -> Loader:
        place = _place(dataset)
        if place not in self._pixels:
            loader = open_loader(dataset, self._engine, self._runtime)
            self._pixels[place] = self._stack.enter_context(loader)
        return self._pixels[place]


def _place(dataset: Dataset) -> tuple[Path, int, tuple[tuple[str, str], ...]]:
    """The data set of a run: its folder, its deal to folds, and the tree that it is on."""
    return dataset.folder, dataset.repeat, tuple(dataset.taxonomy.parent_of.items())
