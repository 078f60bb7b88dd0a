"""Local ranks: one function in several processes of this machine, by torchrun's elastic launcher."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.launching import failures
from leukotree import signals
from leukotree.errors import Busy, InputError, Kind, PeerFailed, Preempted, RunFailed, kind, one_line
from leukotree.runtime import Runtime

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


IMPORTS = (
    "leukotree.training.run",
    "hpc.launching.ranks",
    "torch.distributed.launcher.api",
    "sklearn.metrics",
)
"""What a rank needs before its first step, and for its first scores."""
SAVING = 60
"""Seconds that ranks get to leave by themselves before they are killed."""
PID = "pid-"
_until_the_end = contextlib.ExitStack()
"""Of a rank; never closed: the launcher may pass a signal on when the rank has saved already, and is not to
be killed by it."""


def prepare_ranks(ranks: int) -> None:
    """Start the server that local ranks are forked from; it imports what they need while this process imports
    and checks.

    It only imports: a process that has started CUDA, or threads, must not be forked. It ends with this
        process.
    """
    if ranks > 1:
        multiprocessing.set_forkserver_preload(list(IMPORTS))
        # A scheduler signals every process of a job. The server inherits that these are blocked, so it lives
        # on; a rank lets them through when it listens, and hears then of those that came before.
        with _blocked():
            forkserver.ensure_running()


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_ranks(function: Callable[..., Any], *arguments: Any, runtime: Runtime, ranks: int) -> Any:
    """`function(*arguments, runtime)` in so many processes of this machine; what the main rank returns.

    Each gets its share of the cores if `runtime` names no threads. A request to stop (`leukotree.signals`)
    that reaches this process is passed on to the ranks, which save and leave. Raises what ended a rank,
    Preempted, or RunFailed of the kind "node" where a rank was killed, "oom" where the kernel did that for
    want of memory; its peers end within a minute.
    """
    prepare_ranks(ranks)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if runtime.threads is None:
        runtime = dataclasses.replace(runtime, threads=max(1, len(os.sched_getaffinity(0)) // ranks))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=function.__name__,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="forkserver",
        signals_to_handle="SIGHUP",  # not SIGTERM: to the launcher that means to kill the ranks
        shutdown_timeout=SAVING,
    )
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they would print what we raise
    kills = failures.memory_kills()
    with tempfile.TemporaryDirectory() as told, _stops_passed_on(Path(told)):
        try:
            results = elastic_launch(config, _rank)(told, function, *arguments, runtime)
        except SignalException:  # the terminal has gone
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            raise _cause(Path(told), error, failures.memory_kills() > kills) from None
    result = results[0]
    if isinstance(result, Preempted):
        raise result
    return result


@contextlib.contextmanager
def _stops_passed_on(told: Path) -> Iterator[None]:
    """Send each rank that listens SIGUSR2, once, after this process was asked to stop."""
    ended = threading.Event()

    def watch() -> None:
        sent: set[str] = set()
        while not ended.wait(0.2):
            if signals.requested():
                for name in {path.name for path in told.glob(f"{PID}*")} - sent:
                    sent.add(name)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(name.rpartition("-")[2]), signal.SIGUSR2)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _rank(told: str, function: Callable[..., Any], *arguments: Any) -> Any:
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    rank = os.environ["RANK"]
    _until_the_end.enter_context(signals.watched())
    Path(told, f"{PID}{rank}-{os.getpid()}").touch()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOPS)
    try:
        return function(*arguments)
    except Preempted as preempted:  # no failure: every rank has saved and leaves
        return preempted
    except Exception as error:
        said = {"type": type(error).__name__, "kind": kind(error), "message": one_line(error)}
        Path(told, rank).write_text(json.dumps(said | {"stack": traceback.format_exc()}))
        raise


def _end_with_launcher() -> None:
    """A launcher that is killed says nothing, and the server that a rank was forked from lives as long as the
    ranks do."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    launcher.join()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(SAVING)
    os._exit(os.EX_TEMPFAIL)  # the main thread waits where no exception reaches it


def _cause(told: Path, error: ChildFailedError, no_memory: bool) -> Exception:
    """The error that ended the ranks, with that rank's traceback as a note where it was not foreseen. When a
    rank fails the others lose their connection to it, and that says nothing; a rank that was killed says
    nothing at all."""
    said = [json.loads(path.read_text()) for path in sorted(told.iterdir()) if not path.name.startswith(PID)]
    for one in sorted(said, key=lambda one: one["kind"] == "error"):
        if one["kind"] != "node" and one["type"] != PeerFailed.__name__:
            return _told(one["type"], one["kind"], one["message"], one["stack"])
    rank, failure = error.get_first_failure()
    silent = {int(path.name.split("-")[1]) for path in told.glob(f"{PID}*")} - {
        int(path.name) for path in told.iterdir() if not path.name.startswith(PID)
    }
    if failure.exitcode == -signal.SIGKILL and no_memory:
        return RunFailed(f"rank {rank}: the kernel ended it for want of memory", "oom")
    if failure.exitcode < 0:
        return RunFailed(
            f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}{_memory(failure.exitcode)}",
            "node",
        )
    gone = (
        f"rank {min(silent)} was killed"
        if silent and rank not in silent
        else f"rank {rank} left with code {failure.exitcode}"
    )
    return RunFailed(f"{gone}; see what it printed", "node")


def _memory(exitcode: int) -> str:
    return "; did the machine run out of memory?" if exitcode == -signal.SIGKILL else ""


def _told(name: str, of_kind: Kind, message: str, stack: str) -> Exception:
    for foreseen in (InputError, Busy):
        if name == foreseen.__name__:
            return foreseen(message)
    if name == RunFailed.__name__:
        return RunFailed(message, of_kind)
    found = RunFailed(f"{name}: {message}", of_kind)
    found.add_note(stack)
    return found
