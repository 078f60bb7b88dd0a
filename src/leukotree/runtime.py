"""Runtime: where and how a run computes. None of it is in the spec, because none of it changes the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_WORKERS = 8
"""Decoding threads per rank that are chosen at most. With one core each they keep ahead of any one GPU."""
CACHE_GB = 8.0
"""Largest size of a new cache of decoded images, in 10^9 bytes, where none is given."""


@dataclass(frozen=True)
class Runtime:
    """Device, threads, cache and similar choices of one process. Importing it does not import torch."""

    device: str = "auto"
    """`auto` (CUDA if there is one), `cpu` or `cuda`."""
    workers: int | None = None
    """Decoding threads per rank. 0 decodes in the training loop. None chooses from the machine."""
    cache: Path | None = None
    """Folder for decoded images, shared by all ranks and runs of a machine. None decodes each time."""
    cache_gb: float = CACHE_GB
    """Largest size of the cache, in 10^9 bytes."""
    scratch: Path | None = None
    """Folder of this machine for shards that lie at an address. None: as `data.remote.scratch` says."""
    scratch_gb: float | None = None
    """Largest size of these shards, in 10^9 bytes. None: half of the disk."""
    features: Path | None = None
    """Folder for the features of a frozen backbone, which outlive the run. None: a folder beside the runs."""
    store_features: bool = True
    """Whether heads on fixed views train on stored features. False: the backbone runs in each step, which
    gives the same numbers but for rounding. For checks and benchmarks."""
    threads: int | None = None
    """Threads of torch per rank on the CPU. None keeps torch's choice."""
    save_s: float = 600.0
    """Seconds after which a run also saves in the middle of an epoch."""
    quiet: bool = False
    """No progress bars."""
    deepspeed: Mapping[str, Mapping[str, Any]] | None = None
    """Strategy -> DeepSpeed settings that only change speed (bucket sizes, overlap). None keeps its own."""
    trackers: tuple[str, ...] = ()
    """Trackers that follow a run: "tensorboard" and "mlflow", see `leukotree.trackers`. None is imported
    otherwise."""
    mlflow_uri: str | None = None
    """The address of MLflow's store."""
    probe: int = 0
    """Epochs between two measurements of the interference of levels. 0 measures none."""
