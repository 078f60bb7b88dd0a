"""A connection to Ray, its own or one that runs, and the places for trials that it has."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukotree.errors import InputError

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output announces each experiment whatever its verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own record has what the report needs
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that diverged has no score
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would end the sweep as if it were complete
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they stand in trials.csv and in the run folders
}


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[Path]:
    """A connection to Ray, and a private folder that is gone at the end. A Ray of our own lives in that folder, and asks for
    a token (its ports are open to every user of this machine)."""
    # ray.init makes it RAY_AUTH_MODE=token. If we did, a Ray that somebody has imported before would not notice.
    settings = _ENVIRONMENT | ({"RAY_AUTH_TOKEN": _token()} if address is None else {})
    before = {name: os.environ.get(name) for name in (*settings, "RAY_AUTH_MODE")}
    os.environ.update({name: os.environ.get(name, value) for name, value in settings.items()})
    import ray

    private = Path(tempfile.mkdtemp(prefix="ray", dir=_short_folder()))
    own: dict[str, Any] = {
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "object_store_memory": 100 * 2**20,  # trials hand over numbers only
        "_temp_dir": str(private / "t"),
    }
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else own))
        yield private
    finally:
        ray.shutdown()
        shutil.rmtree(private, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@functools.cache
def _token() -> str:
    """A secret of this process. One for all its sweeps, since Ray reads it only once."""
    return secrets.token_hex(32)


def _short_folder() -> str:
    """The temporary folder, or /tmp where it is too deep: Ray's socket paths below it may not pass 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 24 else "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it


@dataclass(frozen=True)
class Slots:
    """Places for trials: what each has, and how many there are."""

    cpus: int
    gpus: float
    count: int


def nodes() -> list[dict[str, float]]:
    """The resources of each living node of the Ray that we are connected to: CPU, GPU, ..."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def slots(nodes: Sequence[Mapping[str, float]], cpus: int | None, gpus: float | None, concurrency: int | None = None) -> Slots:
    """The slots of `cpus` cores and `gpus` GPUs that the nodes have room for, at most `concurrency`.

    None: one GPU if there are any; its share of the cores of its node, or one core without GPUs. Raises InputError if there
    is room for none.
    """
    if gpus is None:
        gpus = min(1.0, max(node.get("GPU", 0.0) for node in nodes))
    on_gpus = [int(node.get("GPU", 0)) * int(1 / gpus) if gpus else None for node in nodes]  # a share is of one GPU, not of two
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if cpus is None:
        shares = [have // most for have, most in zip(cores, on_gpus, strict=True) if most]
        cpus = max(1, min(shares, default=1))
    fits = [have // cpus if most is None else min(have // cpus, most) for have, most in zip(cores, on_gpus, strict=True)]
    if not sum(fits):
        raise InputError(f"no node of Ray has the {cpus} cores and {gpus:g} GPUs that a trial is to take; ask for less")
    return Slots(cpus, gpus, min(sum(fits), concurrency or sum(fits)))
