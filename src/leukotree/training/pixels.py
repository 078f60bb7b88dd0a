"""The loader of a process that decodes images, as its runtime says."""

from __future__ import annotations

from leukotree.data.cache import open_cache
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.runtime import Runtime


def open_loader(dataset: Dataset, engine: Engine, runtime: Runtime) -> Loader:
    """A loader with the threads and the cache of a rank. A context; every rank calls it."""
    workers = engine.default_workers() if runtime.workers is None else runtime.workers
    cache = open_cache(runtime.cache, dataset, runtime.cache_gb) if runtime.cache else None
    return Loader(dataset, workers=workers, cache=cache, pin=engine.pin)
