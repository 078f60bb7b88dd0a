"""A connection to Ray: to a Ray of this process, or to a Ray cluster that runs already."""

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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from hpc.launching import snapshot
from leukotree import files, signals
from leukotree.errors import Preempted, RunFailed

PATIENCE = 180.0
"""Seconds within which all nodes of a Ray cluster must join."""
NO_ROOM = "no room for Ray's files; make room, or set TMPDIR to another disk, and run it again"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output announces each experiment at any verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_prestart_worker_first_driver": "0",  # a process for each CPU, which no trial would use
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the record of the search has what the report needs
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that diverged has no score
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would end the sweep as if it were complete
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # trials.csv and the run folders have them
}


@contextlib.contextmanager
def connect(address: str | None, count: int = 1, code: Path | None = None) -> Iterator[Path | None]:
    """A connection to Ray. Yields the private folder of a Ray that is started here, or None.

    A Ray that is started here lives in that folder, which is removed at the end. It asks for a token, because
    its ports are open to every user of this machine. A Ray cluster that is joined must get `count` nodes;
    Preempted of the kind "node" is raised if it does not. `code`: the folder from which Ray's processes
    import our packages (see `hpc.launching.snapshot`).
    """
    # ray.init turns RAY_AUTH_TOKEN into RAY_AUTH_MODE=token. A Ray that was imported before would not notice
    # if the mode were set here.
    settings = _ENVIRONMENT | ({"RAY_AUTH_TOKEN": _token()} if address is None else {})
    with _environment(settings, snapshot.environment(code) if code else {}), contextlib.ExitStack() as stack:
        import ray

        private = Path(tempfile.mkdtemp(prefix="ray", dir=short_folder())) if address is None else None
        handler, others = signal.getsignal(signal.SIGTERM), _descendants()
        try:
            _init(address, private, code)
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray's own handler ends this process
            if private is not None:
                stack.enter_context(_removed_after_a_kill(private, _descendants() - others))
            else:
                _wait_for_nodes(count)
            yield private
        finally:
            ray.shutdown()
            stack.close()
            if private is not None:
                shutil.rmtree(private, ignore_errors=True)


@contextlib.contextmanager
def _environment(defaults: Mapping[str, str], code: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of a connection. `defaults` do not replace what the user has set."""
    before = {name: os.environ.get(name) for name in (*defaults, *code, "RAY_AUTH_MODE")}
    os.environ.update({name: os.environ.get(name, value) for name, value in defaults.items()} | dict(code))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _init(address: str | None, private: Path | None, code: Path | None) -> None:
    """Join Ray, or start it in the folder `private`. Raises RunFailed of the kind "disk" if a disk is
    full."""
    import ray

    own: dict[str, Any] = {
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "object_store_memory": 100 * 2**20,  # trials hand over numbers only
        "_temp_dir": f"{private}/t",
    }
    try:
        # A trial's process looks for modules first in the folder from which ray.init was called.
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


@contextlib.contextmanager
def _removed_after_a_kill(private: Path, ids: Iterable[int]) -> Iterator[None]:
    """Ends Ray's processes and removes its folder also if this process is killed.

    The kernel then ends Ray's head, and its workers follow. Ray's helpers would stay for more than a minute,
    and the folder for ever. A shell waits at the other end of a pipe, and does both when the pipe closes.
    """
    script = 'private=$1; shift; read -r _; kill -KILL "$@"; sleep 1; rm -rf -- "$private"'
    command = ["sh", "-c", script, "sweeper", str(private), *map(str, ids)]
    cleaner = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        cleaner.kill()
        cleaner.communicate()


def _descendants() -> set[int]:
    """Ids of the living processes that this process has started, directly or through others."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def _wait_for_nodes(count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (have := len(nodes())) < count:
        if signals.requested():
            raise Preempted("asked to stop before all nodes of Ray have joined")
        if time.monotonic() > deadline:
            raise Preempted(
                f"only {have} of {count} nodes of Ray have joined within {PATIENCE:.0f} s; run it again",
                "node",
            )
        time.sleep(0.5)


@functools.cache
def _token() -> str:
    """A secret of this process. All its sweeps share it, since Ray reads it only once."""
    return secrets.token_hex(32)


def short_folder() -> str:
    """The temporary folder, or /tmp where its path is too long. Ray's socket paths in it may have at most 107
    bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 24 else "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it


def nodes() -> list[dict[str, float]]:
    """The resources of each living node of the connected Ray: CPU, GPU, ..."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
