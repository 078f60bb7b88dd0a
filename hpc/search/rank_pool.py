"""A gang: the ranks of a trial as processes that stay, so that only the first trial pays for imports and for
joining.

Each rank is a rank of one torch.distributed group on this machine, and trains
`leukotree.training.run.lockstep` of the same runs. The process that speaks for them sends each the same
command and waits for all their answers. A rank ends when that process does, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from typing import Any

from leukotree import signals
from leukotree.distributed.engine import start
from leukotree.errors import InputError, PeerFailed, Preempted, RunFailed, one_line
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import run

PATIENCE = 10.0
"""Seconds that ranks have to say something after one of them has failed; then they wait for it in a
collective, and are ended."""
START = 600.0
"""Seconds for all ranks to join."""
HOST = "127.0.0.1"
Rows = Generator[dict[str, Any], None, None]
FORESEEN = (InputError, RunFailed, Preempted, PeerFailed)
"""Errors after which a rank can train something else. They travel between processes, which others may not."""


class RankDied(RuntimeError):
    """A rank's process ended, which says nothing of what it trained."""


class Gang:
    """`ranks` processes on this machine; a context, at whose end they are gone. They start when they are
    first needed, and anew after one that died."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[connection.Connection[Any, Any]] = []
        self._store: Any = None

    def __enter__(self) -> Gang:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._end()

    @property
    def pids(self) -> list[int]:
        """Of the living ranks, in rank order."""
        return [process.pid for process in self._processes if process.poll() is None]

    def lockstep(
        self, specs: Sequence[RunSpec], root: Path, runtime: Runtime, *, each_epoch: bool = True
    ) -> Rows:
        """`leukotree.training.run.lockstep` in all ranks; the main rank's rows. Raises what ended them, or
        RankDied."""
        if not self._processes:
            self._start(runtime)
        self._ask(("begin", list(specs), root, runtime, each_epoch))
        try:
            while (row := self._ask(("next",))) is not None:
                yield row
        finally:
            if self._processes:
                self._ask(("close",))

    def _start(self, runtime: Runtime) -> None:
        import torch.distributed as dist

        # The store is ours, so that its port is taken before anyone hears of it.
        self._store = dist.TCPStore(
            HOST, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=START)
        )
        common = {
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(self._store.port),
            "WORLD_SIZE": str(self.ranks),
            "LOCAL_WORLD_SIZE": str(self.ranks),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        for rank in range(self.ranks):
            ours, theirs = connection.Pipe()
            with theirs:
                command = [
                    sys.executable,
                    "-c",
                    "import sys, hpc.search.rank_pool; hpc.search.rank_pool.main(int(sys.argv[1]))",
                    str(theirs.fileno()),
                ]
                environment = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            self._processes.append(process)
            self._pipes.append(ours)
        self._ask(runtime)

    def _ask(self, command: Any) -> Any:
        """Send a command to every rank; the main rank's answer when all have answered. Ends the gang where
        one did not."""
        try:
            for pipe in self._pipes:
                pipe.send(command)
            answers = self._answers()
        except (OSError, EOFError):
            code = self._exit_code()
            self._end()
            raise RankDied(f"a rank of the trial ended by itself (exit code {code})") from None
        except BaseException:
            self._end()
            raise
        problems = [answer for answer in answers.values() if isinstance(answer, Exception)]
        if len(answers) < self.ranks or not all(isinstance(problem, FORESEEN) for problem in problems):
            self._end()
        if problems:
            raise next((problem for problem in problems if not isinstance(problem, PeerFailed)), problems[0])
        return answers[0]

    def _answers(self) -> dict[int, Any]:
        """rank -> its answer; after an error those that came in time. Raises EOFError where a rank is
        gone."""
        answers: dict[int, Any] = {}
        end = float("inf")
        while len(answers) < self.ranks and time.monotonic() < end:
            waiting = {rank: pipe for rank, pipe in enumerate(self._pipes) if rank not in answers}
            ready = connection.wait(list(waiting.values()), timeout=None if end == float("inf") else PATIENCE)
            for rank, pipe in waiting.items():
                if pipe in ready:
                    answers[rank] = pipe.recv()
                    if isinstance(answers[rank], Exception):
                        end = min(end, time.monotonic() + PATIENCE)
        return answers

    def _exit_code(self) -> int | None:
        """Of a rank that ended; None if none has by now."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            for process in self._processes:
                if process.poll() is not None:
                    return process.returncode
            time.sleep(0.05)
        return None

    def _end(self) -> None:
        processes, self._processes = self._processes, []
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._store = [], None
        deadline = time.monotonic() + 1.0
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))  # at the end of its pipe it leaves
            process.kill()
            process.wait()


def main(descriptor: int) -> None:
    """A rank: joins the others, then does what it is told until its pipe ends."""
    pipe: connection.Connection[Any, Any] = connection.Connection(descriptor)
    commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, commands), daemon=True).start()
    with signals.watched(), start(commands.get()):
        pipe.send(None)
        rows: Rows | None = None
        while True:
            try:
                rows, answer = _do(commands.get(), rows)
            except FORESEEN as error:
                rows, answer = None, error
            except Exception as error:
                rows, answer = None, RuntimeError(f"{type(error).__name__}: {one_line(error)}")
            pipe.send(answer)


def _listen(pipe: connection.Connection[Any, Any], commands: queue.SimpleQueue[Any]) -> None:
    """Hand over what is sent. When nobody is left to send, this process ends at once, whatever it does."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            commands.put(pipe.recv())
    os._exit(0)


def _do(command: Any, rows: Rows | None) -> tuple[Rows | None, Any]:
    """The generator that is to be driven, and the answer."""
    match command:
        case ("begin", specs, root, runtime, each_epoch):
            return run.lockstep(specs, root, runtime, each_epoch=each_epoch), None
        case ("next",):
            assert rows is not None
            return rows, next(rows, None)
        case _:
            if rows is not None:
                rows.close()
            return None, None
