"""The workers of an elastic search: small jobs that come when the queue starts them, and may leave at any
time.

The search keeps as many of them queued or at work as it has trials left, at most so many as were asked for,
and ends them when it ends. A worker is a node of the search's Ray (slurm/worker.sh).
"""

from __future__ import annotations

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
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
"""That of the code which runs here: a search in the queue has a copy of its own (hpc.launching.snapshot)."""
TICK = 5.0
"""Seconds between two looks at the queue."""
PATIENCE = 60.0
"""Seconds that a command of SLURM may take, and that ended workers have to go."""
MOST = 100
"""Workers in one array: fewer than any cluster's MaxArraySize."""


class Worker(NamedTuple):
    """A worker's job that SLURM has not done with."""

    job: str
    """12_3."""
    state: str
    """As squeue says it: PENDING, RUNNING, ..."""


class Workers:
    """A context that keeps the workers; at its end they are gone.

    Args:
        most: workers at a time, at most.
        folder: what all nodes of the search share (see slurm/sweep.sh).
        site: what SLURM is asked for; of its `nodes` a worker is one.
        open_trials: how many trials have not ended.
        places: trials at the same time on one worker.
        joined: how many trials could run now, on the workers that have joined.
        give_up: called once with one line if the search cannot get workers.
    """

    def __init__(
        self,
        most: int,
        folder: Path,
        site: Site,
        *,
        open_trials: Callable[[], int],
        places: int,
        joined: Callable[[], int],
        give_up: Callable[[str], None],
    ) -> None:
        self._most, self._folder, self._site, self._places = most, folder, site, places
        self._open_trials, self._joined, self._give_up = open_trials, joined, give_up
        self.name = f"leukotree-workers-{folder.name}"
        """Of the workers' jobs: that of no others, as it names the cluster and the job that searches."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="workers", daemon=True)
        self._fruitless = 0
        self._bad_before: set[str] = set()
        """Nodes that could not begin while other workers were there."""
        self._full = False

    def __enter__(self) -> Workers:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        end = time.monotonic() + PATIENCE
        while (left := self._queued()) != [] and time.monotonic() < end:
            self._cancel([worker for worker in left or () if worker.state != "COMPLETING"])
            time.sleep(1)

    def _keep(self) -> None:
        while not self._over.is_set():
            try:
                problem = self._look()
            except Exception as error:  # without this thread the search would wait for ever
                problem = f"the workers cannot be looked after: {type(error).__name__}: {one_line(error)}"
            if problem:
                self._give_up(problem)
                return
            self._over.wait(TICK)

    def _look(self) -> str | None:
        """Queue the workers that are missing, cancel those that wait for nothing. Returns why there can be
        none."""
        queued = self._queued()
        if queued is None:  # SLURM will answer another time
            return None
        if self._joined():
            self._fruitless, self._bad_before = 0, set(self.bad_nodes())
        queued = [worker for worker in queued if worker.state != "COMPLETING"]
        wanted = min(self._most, math.ceil(self._open_trials() / self._places))
        waiting = [worker for worker in queued if worker.state == "PENDING"]
        if len(queued) > wanted:
            self._cancel(waiting[wanted - len(queued) :])
            return None
        if len(queued) < wanted:
            return self._hopeless(queued) or self._submit(wanted - len(queued), len(queued))
        return None

    def _hopeless(self, queued: Sequence[Worker]) -> str | None:
        """Why no worker will come, if there is nobody at work."""
        if queued or self._joined():
            return None
        bad = {host: reason for host, reason in self.bad_nodes().items() if host not in self._bad_before}
        if len(bad) >= caps.BAD_NODES:
            host, reason = list(bad.items())[-1]
            return f"workers cannot begin on {', '.join(bad)} ({host}: {reason}); mend that"
        if self._fruitless >= caps.UNJOINED_WORKERS:
            return f"workers end before they join the search; see {self._folder}/worker-*.out"
        return None

    def bad_nodes(self) -> dict[str, str]:
        """Node -> why it cannot begin, as its workers said."""
        path = self._folder / "bad-nodes"
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return {host: reason for host, _, reason in (line.partition(" ") for line in lines) if host}

    def _submit(self, count: int, others: int) -> str | None:
        """Queue so many workers. What SLURM refuses is asked for again, unless nobody else is there to do the
        work."""
        bad = self.bad_nodes()
        exclude = [f"--exclude={','.join(bad)}"] if bad else []
        output, options = f"--output={self._folder}/worker-%A_%a.out", worker_options(self._site)
        code: int | None = 1
        said = ""
        count = min(count, MOST)
        while count and code:  # a limit on the jobs of a user refuses an array as a whole
            array = [f"--array=0-{count - 1}", f"--job-name={self.name}", output]
            code, said = _ask(["sbatch", *array, *options, *exclude, str(SCRIPT), str(self._folder)])
            count //= 2
        if code == 0 and not others:
            self._fruitless += 1
        if code and scheduler.QUEUE_FULL.search(said) and not others and not self._full:
            logger.warning(f"the queue takes no workers: {one_line(said)[-300:]}; they are asked for again")
            self._full = True
        if code and not others and not self._joined() and not _will_pass(said):
            return f"sbatch refused the workers: {one_line(said)[-300:]}; see the site file"
        return None

    def _queued(self) -> list[Worker] | None:
        """The workers that this search has queued; None where SLURM does not answer."""
        command = [
            "squeue",
            "--all",
            "--noheader",
            "--array",
            "--format=%i %T",
            f"--name={self.name}",
            f"--user={os.getuid()}",
        ]
        code, said = _ask(command)
        return [Worker(*line.split()) for line in said.splitlines()] if code == 0 else None

    @staticmethod
    def _cancel(workers: Sequence[Worker]) -> None:
        if workers:
            _ask(["scancel", *(worker.job for worker in workers)])


def worker_options(site: Site) -> list[str]:
    """Options of `sbatch` for a worker: one node of the site, or one GPU of it and what belongs to that."""
    return [
        option
        for option in sites.sbatch_options(sites.worker_site(site))
        if not option.startswith(("--nodes=", "--ntasks-per-node=", "--mail-"))
    ]


def nodes(site: Site, most: int) -> list[dict[str, float]]:
    """What Ray will know of so many workers, as `cluster.nodes` tells it."""
    worker = sites.worker_site(site)
    return [
        {"CPU": float(site.cpus_per_task * max(1, worker.gpus_per_node)), "GPU": float(worker.gpus_per_node)}
    ] * most


def _will_pass(said: str) -> bool:
    """Whether SLURM may do later what it has not done now: it gave no answer, or has as many jobs of this
    user as it takes."""
    return bool(scheduler.QUEUE_FULL.search(said) or scheduler.NO_ANSWER.search(said))


def _ask(command: list[str]) -> tuple[int | None, str]:
    """Exit code (None: no answer in time) and what a command of SLURM said, asked as if from outside of our
    job."""
    # Not `outside_a_job`, which changes the environment of all threads.
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
