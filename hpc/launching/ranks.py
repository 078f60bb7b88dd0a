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
"""Modules that a rank needs before its first step, and for its first scores."""
SAVING = 60
"""Seconds that ranks have to end by themselves before they are killed."""
PID = "pid-"
"""Begin of the name of the file by which a rank tells its process."""
_until_the_end = contextlib.ExitStack()
"""Contexts of a rank that are never closed. The launcher may pass a signal on after the rank has saved, and
the signal must not kill it."""


def prepare_ranks(ranks: int) -> None:
    """Start the server that local ranks are forked from. It imports what they need while this process imports
    and checks.

    It does nothing else: a process that has started CUDA, or threads, must not be forked. It ends with this
    process.
    """
    if ranks > 1:
        multiprocessing.set_forkserver_preload(list(IMPORTS))
        # A scheduler signals every process of a job. The server inherits that these signals are blocked, so
        # it is not ended. A rank unblocks them once it handles them, and then gets those that came before.
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
    """Call `function(*arguments, runtime)` in `ranks` processes of this machine. Returns what the main rank
    returns.

    Each rank gets its share of the cores if `runtime` names no threads. A request to stop
    (`leukotree.signals`) that reaches this process is passed on to the ranks, which save and end. If one rank
    ends early, the others end within a minute.

    Raises the error of a rank; Preempted; or RunFailed, of the kind "oom" if the kernel killed a rank for
    lack of memory, else of the kind "node" if a rank was killed."""
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
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they would print the errors that are raised here
    kills = failures.memory_kills()
    with tempfile.TemporaryDirectory() as notes, _stops_passed_on(Path(notes)):
        try:
            results = elastic_launch(config, _rank)(notes, function, *arguments, runtime)
        except SignalException:  # the terminal was closed
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            raise _cause(Path(notes), error, failures.memory_kills() > kills) from None
    result = results[0]
    if isinstance(result, Preempted):
        raise result
    return result


@contextlib.contextmanager
def _stops_passed_on(notes: Path) -> Iterator[None]:
    """Once this process is asked to stop, send SIGUSR2 to each rank that has left its process id in
    `notes`."""
    ended = threading.Event()

    def watch() -> None:
        sent: set[str] = set()
        while not ended.wait(0.2):
            if signals.requested():
                for name in {path.name for path in notes.glob(f"{PID}*")} - sent:
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


def _rank(notes: str, function: Callable[..., Any], *arguments: Any) -> Any:
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    rank = os.environ["RANK"]
    _until_the_end.enter_context(signals.watched())
    Path(notes, f"{PID}{rank}-{os.getpid()}").touch()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOPS)
    try:
        return function(*arguments)
    except Preempted as preempted:  # no failure: every rank has saved, and ends
        return preempted
    except Exception as error:
        note = {"type": type(error).__name__, "kind": kind(error), "message": one_line(error)}
        Path(notes, rank).write_text(json.dumps(note | {"stack": traceback.format_exc()}))
        raise


def _end_with_launcher() -> None:
    """End this rank when its launcher ends. A launcher that is killed does not end its ranks, and the server
    that they were forked from lives as long as they do."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    launcher.join()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(SAVING)
    os._exit(os.EX_TEMPFAIL)  # the main thread waits where no exception reaches it


def _cause(notes: Path, error: ChildFailedError, no_memory: bool) -> Exception:
    """The error that ended the ranks. An unforeseen one has the traceback of its rank as a note.

    When a rank fails, the others lose their connection to it: their errors do not name the cause. A rank that
    was killed leaves no error.
    """
    with_error = [path for path in sorted(notes.iterdir()) if not path.name.startswith(PID)]
    errors = [json.loads(path.read_text()) for path in with_error]
    for note in sorted(errors, key=lambda note: note["kind"] == "error"):
        if note["kind"] != "node" and note["type"] != PeerFailed.__name__:
            return _as_error(note["type"], note["kind"], note["message"], note["stack"])
    rank, failure = error.get_first_failure()
    if failure.exitcode == -signal.SIGKILL and no_memory:
        return RunFailed(f"rank {rank}: the kernel ended it for lack of memory", "oom")
    if failure.exitcode < 0:
        killer = signal.Signals(-failure.exitcode).name
        memory = "; did the machine run out of memory?" if failure.exitcode == -signal.SIGKILL else ""
        return RunFailed(f"rank {rank} was killed by {killer}{memory}", "node")
    begun = {int(path.name.split("-")[1]) for path in notes.glob(f"{PID}*")}
    killed = begun - {int(path.name) for path in with_error}
    if killed and rank not in killed:
        return RunFailed(f"rank {min(killed)} was killed; see what it printed", "node")
    return RunFailed(f"rank {rank} left with code {failure.exitcode}; see what it printed", "node")


def _as_error(name: str, of_kind: Kind, message: str, stack: str) -> Exception:
    """The error that a rank noted: of its own type if that is foreseen, else a RunFailed."""
    for foreseen in (InputError, Busy):
        if name == foreseen.__name__:
            return foreseen(message)
    if name == RunFailed.__name__:
        return RunFailed(message, of_kind)
    unforeseen = RunFailed(f"{name}: {message}", of_kind)
    unforeseen.add_note(stack)
    return unforeseen
