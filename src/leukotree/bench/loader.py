"""The loader alone: training batches as the device reads them, beside libjpeg-turbo alone."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from leukotree.bench.clock import Work, in_turn
from leukotree.bench.setting import Row, Setting
from leukotree.data.cache import Cache
from leukotree.data.images import codec
from leukotree.data.order import TrainOrder
from leukotree.data.stream import CHUNK, Loader

SAMPLE = 2048
"""Most images that are decoded from memory, and most that are put into the cache."""


def measure(setting: Setting) -> list[Row]:
    """The loader on all training images from their shards, as in a first epoch, and on some from the cache.

    The limit of both is the decoding of some JPEGs in memory, by as many threads.
    """
    sample = np.random.default_rng(0).permutation(setting.rows)[:SAMPLE]
    threads = max(1, setting.workers)
    cache = setting.open_cache()
    cached = _fill(setting, cache, sample)
    with (
        Loader(setting.dataset, workers=setting.workers, pin=setting.engine.pin) as plain,
        Loader(setting.dataset, workers=setting.workers, pin=setting.engine.pin, cache=cache) as quick,
        ThreadPoolExecutor(threads, "limit") as pool,
    ):
        works = [_decoding(setting, pool, threads, sample), _batches(setting, plain, setting.rows)]
        if all(setting.engine.gather(len(cached))):
            works.append(_batches(setting, quick, cached))
        limit, *took = in_turn(setting.engine, works, setting.seconds)
    batch = setting.spec.optim.batch_size
    limit_is = f"decoding alone, {threads} thread{'s' * (threads > 1)} per rank"
    names = ("loader", "loader, cached")
    return [
        Row(name, "images/s", batch / seconds, batch / limit, limit_is, seconds)
        for name, seconds in zip(names, took, strict=False)
    ]


def _fill(setting: Setting, cache: Cache | None, sample: np.ndarray) -> np.ndarray:
    """Put the sample's images into the cache; the rows for which it had room."""
    engine = setting.engine
    with Loader(setting.dataset, workers=setting.workers, cache=cache) as loader:
        for _ in loader.evaluate(sample, CHUNK * 8, rank=engine.rank, world=engine.world):
            pass
    engine.barrier()
    return sample[[cache is not None and cache.get(row) is not None for row in sample.tolist()]]


def _batches(setting: Setting, loader: Loader, rows: np.ndarray) -> Work:
    """The work of loading this rank's part of the first global batches of a training on `rows`."""
    spec, engine = setting.spec, setting.engine
    order = TrainOrder(rows, spec.optim.batch_size, spec.seed, spec.augment, setting.dataset.size)

    def work(count: int) -> None:
        for _ in loader.train(
            order, range(count), rank=engine.rank, world=engine.world, micro=spec.engine.micro_batch
        ):
            pass

    return work


def _decoding(setting: Setting, pool: ThreadPoolExecutor, threads: int, sample: np.ndarray) -> Work:
    """The work of decoding as many images as JPEGs in memory, into one buffer per thread."""
    jpegs = [setting.dataset.read(row) for row in sample.tolist()]
    size = setting.dataset.size

    def decode(start: int, stop: int) -> None:
        buffer = np.empty(size * size * 3, np.uint8)
        for jpeg in itertools.islice(itertools.cycle(jpegs), start, stop):
            codec.decode(jpeg, buffer)

    def work(count: int) -> None:
        cuts = np.linspace(0, count * setting.share, threads + 1).astype(int).tolist()
        list(pool.map(decode, cuts[:-1], cuts[1:]))

    return work
