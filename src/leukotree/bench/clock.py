"""Work measured in turn, A B A B ...: a machine's speed drifts, and a measurement shares its minute with its
limit."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from leukotree.distributed.engine import Engine

ROUNDS = 5
"""Turns of each; the median counts."""
_GROWTH = 8
"""Most by which a try at the number of repetitions is longer than the one before."""

Work = Callable[[int], object]
"""Does something so many times, and may return before the device has finished."""


def in_turn(engine: Engine, works: Sequence[Work], seconds: float) -> list[float]:
    """Seconds of one repetition of each work, `seconds` of measuring each. Every rank calls it with works of
    the same kind, and gets the same: a turn lasts until the last rank has done its part."""
    counts = [_repetitions(engine, work, seconds / ROUNDS) for work in works]
    rounds = [
        [_timed(engine, work, count) / count for work, count in zip(works, counts, strict=True)]
        for _ in range(ROUNDS)
    ]
    return [statistics.median(turns) for turns in zip(*rounds, strict=True)]


def _repetitions(engine: Engine, work: Work, seconds: float) -> int:
    """How many take about `seconds`, at least one; the same on every rank."""
    work(1)  # first use compiles, allocates, opens
    count = 1
    while (took := _timed(engine, work, count)) < seconds / 4:
        count = math.ceil(count * min(_GROWTH, seconds / took))
    return max(1, round(count * seconds / took))


def _timed(engine: Engine, work: Work, count: int) -> float:
    """Seconds of `count` repetitions on the slowest rank."""
    engine.barrier()
    _finish(engine)
    began = time.perf_counter()
    work(count)
    _finish(engine)
    return max(engine.gather(time.perf_counter() - began))


def _finish(engine: Engine) -> None:
    """Wait for what the device still does."""
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
