"""The GPUs of this machine: how many a run may use, and which ones a local job gets."""

from __future__ import annotations

import os

from leukotree.errors import InputError
from leukotree.runtime import Runtime


def gpu_count(runtime: Runtime) -> int:
    """GPUs of this machine that a run may use."""
    import torch

    return 0 if runtime.device == "cpu" else torch.cuda.device_count()


def check_gpus(ranks: int, runtime: Runtime) -> None:
    """Raises InputError where a run on this machine has more ranks than there are GPUs."""
    if ranks > 1 and 0 < (count := gpu_count(runtime)) < ranks:
        raise InputError(
            f"--ranks {ranks}: there are {count} GPUs here, one per rank; use fewer ranks, or --device cpu"
        )


def gpus_of_local_job(index: int, ranks: int, runtime: Runtime) -> tuple[int, ...]:
    """Numbers of the GPUs that the local job `index` gets, one for each of its `ranks`. The jobs take the
    GPUs in turn. Raises InputError where CUDA_VISIBLE_DEVICES names GPUs by something else than numbers."""
    count = gpu_count(runtime)
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if count and not all(name.isdecimal() for name in named):  # submitit takes numbers only
        raise InputError(
            f"CUDA_VISIBLE_DEVICES {','.join(named)}: name GPUs by their numbers, or use --on inline"
        )
    visible = [int(name) for name in named] if count and named else list(range(count))
    return tuple(visible[(index * ranks + rank) % count] for rank in range(min(ranks, count)))
