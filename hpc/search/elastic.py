"""The workers of an elastic search: small jobs that start when the queue lets them, and may end at any time.

While the search has open trials it keeps workers queued or running, up to a given number. It ends them when
it ends. A worker is a node of the search's Ray cluster (slurm/worker.sh).
"""

from __future__ import annotations

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from hpc.launching import caps
from hpc.slurm import scheduler
from hpc.slurm import site as sites
from hpc.slurm.site_model import Site
from leukotree.errors import one_line
from leukotree.log import logger

SCRIPT = Path(__file__).resolve().parents[2] / "slurm" / "worker.sh"
"""The script in the code that runs here. A queued search has its own copy of the code (see
hpc.launching.snapshot)."""
TICK = 5.0
"""Seconds between two looks at the queue."""
PATIENCE = 60.0
"""Seconds that a SLURM command may take, and that cancelled workers have to end."""
ARRAY = 100
"""Most workers in one array. It is below every cluster's MaxArraySize."""


@dataclass(frozen=True)
class Elastic:
    """The settings of an elastic search."""

    max_workers: int
    """Most workers at a time."""
    folder: Path
    """The folder that all nodes of the search share (see slurm/sweep.sh)."""
    site: Site

    def resources(self) -> list[dict[str, float]]:
        """The resources that Ray will know of `max_workers` workers, in the form of `cluster.nodes`."""
        worker = sites.worker_site(self.site)
        cpus = self.site.cpus_per_task * max(1, worker.gpus_per_node)
        return [{"CPU": float(cpus), "GPU": float(worker.gpus_per_node)}] * self.max_workers


class WorkerJob(NamedTuple):
    """A worker's job that SLURM still lists."""

    job: str
    """Such as 12_3."""
    state: str
    """In the words of squeue: PENDING, RUNNING, ..."""


class Workers:
    """A context that keeps workers queued or running. At its end it cancels them.

    Args:
        elastic: number, folder and site of the workers. A worker is one node of the site, or one GPU of it.
        open_trials: the number of trials that have not ended.
        slots_per_worker: trials at the same time on one worker.
        joined: the number of trials that could run now on the workers that have joined.
        give_up: called once with a line if the search cannot get workers.
    """

    def __init__(
        self,
        elastic: Elastic,
        *,
        open_trials: Callable[[], int],
        slots_per_worker: int,
        joined: Callable[[], int],
        give_up: Callable[[str], None],
    ) -> None:
        self._elastic, self._folder, self._slots_per_worker = elastic, elastic.folder, slots_per_worker
        self._open_trials, self._joined, self._give_up = open_trials, joined, give_up
        self.name = f"leukotree-workers-{self._folder.name}"
        """Name of the workers' jobs. It is unique: it contains the cluster and the job that searches."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="workers", daemon=True)
        self._fruitless = 0
        self._bad_before: set[str] = set()
        """Nodes that could not start while other workers had joined."""
        self._told_of_full_queue = False

    def __enter__(self) -> Workers:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        end = time.monotonic() + PATIENCE
        while (jobs := self._queued()) != [] and time.monotonic() < end:
            self._cancel([worker for worker in jobs or () if worker.state != "COMPLETING"])
            time.sleep(1)

    def _keep(self) -> None:
        while not self._ended.is_set():
            try:
                problem = self._look()
            except Exception as error:  # without this thread the search would wait for ever
                problem = f"the workers cannot be managed: {type(error).__name__}: {one_line(error)}"
            if problem:
                self._give_up(problem)
                return
            self._ended.wait(TICK)

    def _look(self) -> str | None:
        """Queue missing workers and cancel superfluous ones. Returns the reason if there can be no worker."""
        queued = self._queued()
        if queued is None:  # SLURM did not answer; the next look asks again
            return None
        if self._joined():
            self._fruitless, self._bad_before = 0, set(self.bad_nodes())
        queued = [worker for worker in queued if worker.state != "COMPLETING"]
        wanted = min(self._elastic.max_workers, math.ceil(self._open_trials() / self._slots_per_worker))
        pending = [worker for worker in queued if worker.state == "PENDING"]
        if len(queued) > wanted:
            self._cancel(pending[wanted - len(queued) :])
            return None
        if len(queued) < wanted:
            return self._hopeless(queued) or self._submit(wanted - len(queued), len(queued))
        return None

    def _hopeless(self, queued: Sequence[WorkerJob]) -> str | None:
        """The reason why no worker will join; None if one is queued or has joined, or may still come."""
        if queued or self._joined():
            return None
        bad = {host: reason for host, reason in self.bad_nodes().items() if host not in self._bad_before}
        if len(bad) >= caps.BAD_NODES:
            host, reason = list(bad.items())[-1]
            return f"workers cannot start on {', '.join(bad)} ({host}: {reason}); fix that"
        if self._fruitless >= caps.UNJOINED_WORKERS:
            return f"workers end before they join the search; see {self._folder}/worker-*.out"
        return None

    def bad_nodes(self) -> dict[str, str]:
        """Node -> the reason why a worker cannot start there, as the worker wrote it."""
        path = self._folder / "bad-nodes"
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return {host: reason for host, _, reason in (line.partition(" ") for line in lines) if host}

    def _submit(self, count: int, others: int) -> str | None:
        """Queue `count` workers. `others`: workers that are queued already. Returns the reason if SLURM
        refuses and no other worker is there; a refusal that may pass is tried again at the next look."""
        bad = self.bad_nodes()
        exclude = [f"--exclude={','.join(bad)}"] if bad else []
        output = f"--output={self._folder}/worker-%A_%a.out"
        options = [f"--job-name={self.name}", output, *worker_options(self._elastic.site), *exclude]
        code: int | None = 1
        answer = ""
        count = min(count, ARRAY)
        while count and code:  # a limit on a user's jobs refuses the whole array; half of it may fit
            code, answer = _ask(
                ["sbatch", f"--array=0-{count - 1}", *options, str(SCRIPT), str(self._folder)]
            )
            count //= 2
        if code == 0 and not others:
            self._fruitless += 1
        if code and scheduler.QUEUE_FULL.search(answer) and not others and not self._told_of_full_queue:
            logger.warning(f"the queue takes no workers: {one_line(answer)[-300:]}; they are asked for again")
            self._told_of_full_queue = True
        if code and not others and not self._joined() and not _may_pass(answer):
            return f"sbatch refused the workers: {one_line(answer)[-300:]}; see the site file"
        return None

    def _queued(self) -> list[WorkerJob] | None:
        """The workers of this search that SLURM lists; None if SLURM does not answer."""
        command = [
            "squeue",
            "--all",
            "--noheader",
            "--array",
            "--format=%i %T",
            f"--name={self.name}",
            f"--user={os.getuid()}",
        ]
        code, answer = _ask(command)
        return [WorkerJob(*line.split()) for line in answer.splitlines()] if code == 0 else None

    @staticmethod
    def _cancel(workers: Sequence[WorkerJob]) -> None:
        if workers:
            _ask(["scancel", *(worker.job for worker in workers)])


def worker_options(site: Site) -> list[str]:
    """The options of `sbatch` for a worker: one node of the site, or one GPU and its share of the node."""
    return [
        option
        for option in sites.sbatch_options(sites.worker_site(site))
        if not option.startswith(("--nodes=", "--ntasks-per-node=", "--mail-"))
    ]


def _may_pass(answer: str) -> bool:
    """Whether SLURM may accept later what it refused now: it gave no answer, or has too many jobs of this
    user."""
    return bool(scheduler.QUEUE_FULL.search(answer) or scheduler.NO_ANSWER.search(answer))


def _ask(command: list[str]) -> tuple[int | None, str]:
    """Exit code and output of a SLURM command, called as from outside of this job. The code is None without
    an answer in time."""
    # Not `outside_a_job`: it changes the environment of all threads.
    inside = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_")
    known = scheduler.environment()
    environment = {
        name: value for name, value in known.items() if name == "SLURM_CONF" or not name.startswith(inside)
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, one_line(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr or done.stdout
