"""A pool of processes, one per rank of a trial. They stay from trial to trial, so that only the first trial
waits for their imports and for their joining.

The ranks form one torch.distributed group on this machine. Each trains the same runs by
`leukotree.training.run.lockstep`. The process that owns the pool sends each rank the same command and waits
for all answers. A rank ends when that process ends, in whatever way.
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
"""Seconds that the other ranks have to answer after one has failed. Later they wait for it in a collective,
and are ended."""
START = 600.0
"""Seconds within which all ranks must join."""
HOST = "127.0.0.1"
Rows = Generator[dict[str, Any], None, None]
EXPECTED = (InputError, RunFailed, Preempted, PeerFailed)
"""Errors after which a rank can train something else. They can be sent between processes; others may not."""


class RankDied(RuntimeError):
    """The process of a rank ended. The reason need not lie in what it trained."""


class RankPool:
    """`ranks` processes on this machine. A context; at its end the processes are ended. They start when they
    are first needed, and again after one has died."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[connection.Connection[Any, Any]] = []
        self._store: Any = None

    def __enter__(self) -> RankPool:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._end()

    @property
    def pids(self) -> list[int]:
        """Process ids of the living ranks, in rank order."""
        return [process.pid for process in self._processes if process.poll() is None]

    def lockstep(
        self, specs: Sequence[RunSpec], root: Path, runtime: Runtime, *, each_epoch: bool = True
    ) -> Rows:
        """The rows of the main rank of `leukotree.training.run.lockstep` in all ranks. Raises the error that
        ended it, or RankDied."""
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

        # This process serves the store, so that its port is taken before the ranks are told of it.
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
            self._start_rank(common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        self._ask(runtime)

    def _start_rank(self, variables: dict[str, str]) -> None:
        pipe, rank_end = connection.Pipe()
        with rank_end:
            command = [
                sys.executable,
                "-c",
                "import sys, hpc.search.rank_pool; hpc.search.rank_pool.main(int(sys.argv[1]))",
                str(rank_end.fileno()),
            ]
            process = subprocess.Popen(
                command, env=os.environ | variables, stdin=subprocess.DEVNULL, pass_fds=[rank_end.fileno()]
            )
        self._processes.append(process)
        self._pipes.append(pipe)

    def _ask(self, command: Any) -> Any:
        """Send a command to every rank. Returns the main rank's answer when all have answered. Ends the pool
        if a rank does not answer."""
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
        errors = [answer for answer in answers.values() if isinstance(answer, Exception)]
        if len(answers) < self.ranks or not all(isinstance(error, EXPECTED) for error in errors):
            self._end()
        if errors:
            raise next((error for error in errors if not isinstance(error, PeerFailed)), errors[0])
        return answers[0]

    def _answers(self) -> dict[int, Any]:
        """rank -> its answer. After an error only the answers that came within PATIENCE. Raises EOFError
        where a rank has ended."""
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
        """The exit code of a rank that has ended; None if none ends within two seconds."""
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
                process.wait(max(0.0, deadline - time.monotonic()))  # a rank ends when its pipe is closed
            process.kill()
            process.wait()


def main(descriptor: int) -> None:
    """The program of a rank: it joins the others, then obeys commands until its pipe is closed."""
    pipe: connection.Connection[Any, Any] = connection.Connection(descriptor)
    commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, commands), daemon=True).start()
    with signals.watched(), start(commands.get()):
        pipe.send(None)
        rows: Rows | None = None
        while True:
            try:
                rows, answer = _do(commands.get(), rows)
            except EXPECTED as error:
                rows, answer = None, error
            except Exception as error:
                rows, answer = None, RuntimeError(f"{type(error).__name__}: {one_line(error)}")
            pipe.send(answer)


def _listen(pipe: connection.Connection[Any, Any], commands: queue.SimpleQueue[Any]) -> None:
    """Put what is received into `commands`. When the sender has ended, this process ends at once."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            commands.put(pipe.recv())
    os._exit(0)


def _do(command: Any, rows: Rows | None) -> tuple[Rows | None, Any]:
    """The generator of rows after a command, and the answer to the command."""
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
