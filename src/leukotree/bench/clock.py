"""Works measured in turn, A B A B ...

A machine's speed drifts. A measurement and its limit then drift together.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from leukotree.distributed.engine import Engine

ROUNDS = 5
"""Turns of each work; the median counts."""
_GROWTH = 8
"""Largest factor between two tries at the number of repetitions."""

Work = Callable[[int], object]
"""Repeats something a number of times. It may return before the device has finished."""


def in_turn(engine: Engine, works: Sequence[Work], seconds: float) -> list[float]:
    """Seconds of one repetition of each work; each is measured for about `seconds`.

    Every rank calls it with the same kinds of work, and gets the same result: a turn lasts until the slowest
    rank is done.
    """
    counts = [_repetitions(engine, work, seconds / ROUNDS) for work in works]
    rounds = [
        [_timed(engine, work, count) / count for work, count in zip(works, counts, strict=True)]
        for _ in range(ROUNDS)
    ]
    return [statistics.median(turns) for turns in zip(*rounds, strict=True)]


def _repetitions(engine: Engine, work: Work, seconds: float) -> int:
    """Number of repetitions that take about `seconds`, at least one; the same on every rank."""
    work(1)  # the first one compiles, allocates and opens files
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
    """Wait until the device has finished."""
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
