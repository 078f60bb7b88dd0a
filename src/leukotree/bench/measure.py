"""Runs the measurements on every rank, inline or in local ranks."""

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
"""Largest size of a cache that is made only for the measurement: a temporary folder may lie in memory."""


@dataclass(frozen=True)
class Measured:
    """The measurements of this machine, and its settings."""

    rows: list[Row]
    device: str
    """`cpu` or `cuda`."""
    ranks: int
    workers: int
    """Decoding threads per rank."""
    threads: int
    """Threads of torch per rank."""
    images: int
    """Number of training images of the spec, those of an epoch."""
    size: int
    """Width and height of the images in pixels."""


def measure(
    spec: RunSpec, parts: Collection[str], seconds: float, runs: Path, scratch: Path, runtime: Runtime
) -> Measured:
    """The measurements of the `parts` (keys of PARTS), about `seconds` for each.

    Every rank calls it. Weights are random: speed does not depend on them.

    Args:
        runs: a folder on the disk that holds the runs.
        scratch: a folder for temporary files.

    Raises InputError for what `plan.check` and `engine.start` refuse.
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
        measured: list[Row] = []
        for part in (part for part in PARTS if part in parts):
            if engine.is_main and sys.stderr.isatty():
                say(f"leukotree bench: {part}")
            measured += PARTS[part](setting)
            engine.barrier()
        return Measured(
            measured,
            engine.device.type,
            engine.world,
            workers,
            torch.get_num_threads(),
            len(plan.train_rows),
            plan.dataset.size,
        )
