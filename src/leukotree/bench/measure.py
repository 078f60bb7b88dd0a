"""Runs the measurements on every rank, as `train.run` runs a spec: inline or under local ranks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from leukotree.bench import all_reduce, checkpoints, loader, step
from leukotree.bench.setting import Row, Setting
from leukotree.distributed.engine import start
from leukotree.progress import say
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.plan import check

PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    "loader": loader.measure,
    "step": step.measure,
    "all-reduce": all_reduce.measure,
    "checkpoint": checkpoints.measure,
}
CACHE_GB = 2.0
"""Most that a cache made only to be measured takes: a temporary folder may lie in memory."""


@dataclass(frozen=True)
class Measured:
    """What came out on this machine."""

    rows: list[Row]
    device: str
    """`cpu` or `cuda`."""
    ranks: int
    workers: int
    """Decoding threads per rank."""
    threads: int
    """Threads of torch per rank."""
    images: int
    """Training images of the spec, those of an epoch."""
    size: int
    """Width and height of the images in pixels."""


def measure(
    spec: RunSpec, parts: Collection[str], seconds: float, runs: Path, scratch: Path, runtime: Runtime
) -> Measured:
    """The `parts` (keys of PARTS) in their order, about `seconds` for each of their measurements.

    Every rank calls it. `runs` is a folder on the disk that holds the runs, `scratch` one for temporary
    files. Weights are random, for speed does not depend on them. Raises InputError for what `plan.check` and
    `engine.start` refuse.
    """
    spec = spec.override({"backbone.weights": None})
    plan = check(spec, ranks=int(os.environ.get("WORLD_SIZE", 1)))
    with start(runtime) as engine:
        workers = engine.default_workers() if runtime.workers is None else runtime.workers
        setting = Setting(
            plan,
            engine,
            workers,
            seconds,
            runs,
            scratch,
            runtime.cache,
            runtime.cache_gb if runtime.cache else CACHE_GB,
        )
        found: list[Row] = []
        for part in (part for part in PARTS if part in parts):
            if engine.is_main and sys.stderr.isatty():
                say(f"leukotree bench: {part}")
            found += PARTS[part](setting)
            engine.barrier()
        return Measured(
            found,
            engine.device.type,
            engine.world,
            workers,
            torch.get_num_threads(),
            len(plan.train_rows),
            plan.dataset.size,
        )
