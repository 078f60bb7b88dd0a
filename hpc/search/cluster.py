"""A connection to Ray, its own or one that runs, and the places for trials that it has."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.launching import snapshot
from leukotree import files, signals
from leukotree.errors import InputError, Preempted, RunFailed

PATIENCE = 180.0
"""Seconds within which the nodes of a Ray cluster have to come."""
NO_ROOM = "no room for Ray's files; make room, or set TMPDIR to another disk, and run it again"
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
def connect(address: str | None, count: int = 1, code: Path | None = None) -> Iterator[Path | None]:
    """A connection to Ray. One of our own lives in a private folder, which is given and gone at the end, and
    asks for a token (its ports are open to every user of this machine). Another one has to have `count`
    nodes: Preempted, of the kind "node", if they do not come. `code`: the folder that its processes take our
    packages from (see `hpc.launching.snapshot`)."""
    # ray.init makes it RAY_AUTH_MODE=token. If we did, a Ray that somebody has imported before would not
    # notice.
    settings = _ENVIRONMENT | ({"RAY_AUTH_TOKEN": _token()} if address is None else {})
    of_code = snapshot.environment(code) if code else {}
    before = {name: os.environ.get(name) for name in (*settings, *of_code, "RAY_AUTH_MODE")}
    os.environ.update({name: os.environ.get(name, value) for name, value in settings.items()} | of_code)
    import ray

    private = Path(tempfile.mkdtemp(prefix="ray", dir=short_folder())) if address is None else None
    own: dict[str, Any] = {
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "object_store_memory": 100 * 2**20,  # trials hand over numbers only
        "_temp_dir": f"{private}/t",
    }
    handler, stack, others = (
        signal.getsignal(signal.SIGTERM),
        contextlib.ExitStack(),
        _descendants(os.getpid()),
    )
    try:
        try:
            # The process of a trial looks for modules first in the folder from which Ray was called.
            with contextlib.chdir(code or "."):
                ray.init(
                    address=address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **({} if address else own),
                )
        except Exception as error:
            if full := files.full_disk(*([private] if private else [])):
                raise RunFailed(f"{full.parent}: {NO_ROOM}", "disk") from error
            raise
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, handler
            )  # Ray has put one of its own there, which ends this process
        if private is not None:
            stack.enter_context(_swept_after_a_kill(private, _descendants(os.getpid()) - others))
        else:
            _wait_for_nodes(count)
        yield private
    finally:
        ray.shutdown()
        stack.close()
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _swept_after_a_kill(private: Path, ids: Iterable[int]) -> Iterator[None]:
    """If this process is killed the kernel ends Ray's head, and its workers follow; helpers of Ray would stay
    for more than a minute, and its folder for good. A shell at the other end of a pipe ends these processes
    of Ray and removes the folder."""
    script = 'private=$1; shift; read -r _; kill -KILL "$@"; sleep 1; rm -rf -- "$private"'
    command = ["sh", "-c", script, "sweeper", str(private), *map(str, ids)]
    sweeper = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        sweeper.kill()
        sweeper.communicate()


def _descendants(pid: int) -> set[int]:
    """Ids of the living processes that this one has started, and of those that they have."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return family - {pid}


def _wait_for_nodes(count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (have := len(nodes())) < count:
        if signals.requested():
            raise Preempted("asked to stop before all nodes of Ray have come")
        if time.monotonic() > deadline:
            raise Preempted(
                f"only {have} of {count} nodes of Ray have come within {PATIENCE:.0f} s; run it again", "node"
            )
        time.sleep(0.5)


@functools.cache
def _token() -> str:
    """A secret of this process. One for all its sweeps, since Ray reads it only once."""
    return secrets.token_hex(32)


def short_folder() -> str:
    """The temporary folder, or /tmp where it is too deep: Ray's socket paths below it may not pass 107
    bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 24 else "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it


@dataclass(frozen=True)
class Slots:
    """Places for trials: what each of their ranks has, how many there are, and how many ranks each is for."""

    cpus: int
    gpus: float
    count: int
    ranks: int = 1

    @property
    def devices(self) -> float:
        """GPUs of one trial, a share of one where several trials have it; without GPUs its processes."""
        return self.ranks * (self.gpus or 1)


def room(nodes: Sequence[Mapping[str, float]], slots: Slots) -> int:
    """How many trials the nodes have room for, each with the cores and GPUs of a slot."""

    def places(node: Mapping[str, float]) -> int:
        on_cores = int(node.get("CPU", 0)) // slots.cpus
        on_gpus = int(node.get("GPU", 0) / slots.gpus + 1e-9) if slots.gpus else on_cores
        return min(on_cores, on_gpus) // slots.ranks

    return sum(places(node) for node in nodes)


def nodes() -> list[dict[str, float]]:
    """The resources of each living node of the Ray that we are connected to: CPU, GPU, ..."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def slots(
    nodes: Sequence[Mapping[str, float]],
    cpus: int | None,
    gpus: float | None,
    concurrency: int | None = None,
    ranks: int = 1,
) -> Slots:
    """The slots that the nodes have room for, at most `concurrency`: each for `ranks` ranks of `cpus` cores
    and `gpus` GPUs on one node.

    None: one GPU if there are any; its share of the cores of its node, or one core without GPUs. Raises
    InputError if there is room for none, or for ranks that share a GPU.
    """
    if gpus is None:
        gpus = min(1.0, max(node.get("GPU", 0.0) for node in nodes))
    if ranks > 1 and gpus % 1:
        raise InputError(
            f"--gpus-per-trial {gpus:g}: each of the {ranks} ranks of a trial takes whole GPUs; use 1"
        )
    on_gpus = [
        int(node.get("GPU", 0)) * int(1 / gpus) if gpus else None for node in nodes
    ]  # a share is of one GPU, not of two
    if gpus > 1:
        on_gpus = [int(node.get("GPU", 0) // gpus) for node in nodes]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if cpus is None:
        shares = [have // most for have, most in zip(cores, on_gpus, strict=True) if most]
        cpus = max(1, min(shares, default=1))
    fits = [
        have // cpus if most is None else min(have // cpus, most)
        for have, most in zip(cores, on_gpus, strict=True)
    ]
    count = sum(fit // ranks for fit in fits)
    if not count:
        needs = f"{cpus * ranks} cores and {gpus * ranks:g} GPUs"
        raise InputError(f"no node of Ray has the {needs} that a trial is to take; ask for less")
    return Slots(cpus, gpus, min(count, concurrency or count), ranks)
