"""What a job of submitit does, on SLURM or on this machine: its runs, one after another, and how it ends."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.launching import caps, failures, job_files, meeting, retries, run_states
from hpc.slurm import own_job, scratch
from leukotree import signals
from leukotree.errors import Busy, InputError, Preempted, RunFailed, one_line
from leukotree.log import logger
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    import submitit


MAIN_RANK_SECONDS = 15.0
"""How long a failed rank waits before it ends its job, so that the main rank can write down the reason."""


@dataclasses.dataclass
class Job:
    """Some runs, one after another: what submitit pickles. A job that is queued again calls it again, and
    finished runs return at once."""

    specs: Sequence[RunSpec]
    root: Path
    runtime: Runtime
    pause: float = 0.0
    """Seconds to wait before the first run."""

    def __call__(self) -> list[str]:
        """Do the runs. Returns the names of those that failed; the reason of each is in the job's log.

        Raises the error of a lone run. If the job is asked to stop, the run saves, and the process ends (see
        `_end_process`).
        """
        requeue_handler = signal.getsignal(signal.SIGUSR2)  # submitit's: it queues the job again
        self._check_progress()
        ranks = meeting.export_ranks(job_files.folder(self.root))
        try:
            with signals.watched(), scratch.caches():
                signals.sleep(self.pause, "asked to stop before the first run")
                return self._runs(ranks)
        except Preempted as error:
            logger.warning(error)
            _end_process(requeue_handler if callable(requeue_handler) else None)
            raise  # not reached

    @property
    def run_names(self) -> list[str]:
        return [spec.run_name for spec in self.specs]

    def _check_progress(self) -> None:
        """Raises RunFailed if this job was queued again many times without progress. After progress its count
        of lost ranks starts at zero."""
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        states = [run_states.read(self.root / name) for name in self.run_names]
        open_names = [state.run_name for state in states if state.begun and state.state != "done"]
        if restarts > caps.RUN_ENDS["preempted"] and not any(
            retries.judge(self.root, name, None, new_command=False).again for name in open_names
        ):
            raise RunFailed(
                f"the job was queued again {restarts} times without progress; see its log", "node"
            )
        if restarts and any(
            not retries.ends_without_progress(self.root / name, "node") for name in open_names
        ):
            import submitit

            job_files.losses(self.root, submitit.JobEnvironment().job_id).unlink(missing_ok=True)

    def _runs(self, ranks: int) -> list[str]:
        failed = []
        for spec in self.specs:
            try:
                _run(spec, self.root, self.runtime)
            except Preempted:
                raise
            except Exception as error:
                kind = failures.kind_in_job(error, spec)
                failures.report_error(spec.run_name, kind, one_line(error))
                if os.environ.get("RANK", "0") != "0":
                    time.sleep(MAIN_RANK_SECONDS)
                if kind == "node" and (ranks > 1 or len(self.specs) == 1):
                    sys.exit(os.EX_TEMPFAIL)  # the end of the batch script knows this code
                # After an error the ranks may be at different places, so this job can do no other run.
                if ranks > 1 or len(self.specs) == 1:
                    raise
                failed.append(spec.run_name)
        return failed

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """The same job again; submitit calls it at a preemption or a timeout."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _run(spec: RunSpec, root: Path, runtime: Runtime) -> None:
    from hpc.launching import health
    from leukotree.training import run

    inspect = functools.partial(health.require, root) if "SLURM_JOB_ID" in os.environ else None
    try:
        run.run(spec, root, runtime, inspect)
    except Busy:
        time.sleep(failures.HELD_SECONDS)
        run.run(spec, root, runtime, inspect)


def _end_process(requeue_handler: Callable[..., Any] | None) -> None:
    """End this process of a job whose runs are saved, and have the job queued again if it should be.

    SLURM itself queues the job again after `scontrol requeue` and after most preemptions. After `scancel` it
    must not be queued again; it is then completing. After SIGUSR2 (near the time limit, or a preemption), and
    in the time that a preemption grants, submitit's handler queues it. The other ranks end without an error:
    an error would end the main rank while it does that.
    """
    import submitit

    job = submitit.JobEnvironment()
    if job.global_rank != 0:
        sys.exit(0)
    if (
        job.cluster == "slurm"
        and requeue_handler is not None
        and (signals.received() != signal.SIGTERM or own_job.is_running(job.job_id))
    ):
        try:
            requeue_handler(signal.SIGUSR2, None)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            _queue_again(job.job_id)
    sys.exit(os.EX_TEMPFAIL)


def _queue_again(job_id: str) -> None:
    """Ask SLURM for the requeue, more often than submitit's handler does. If SLURM refuses, the end of the
    batch script asks once more, and notes a second refusal."""
    try:
        own_job.requeue(job_id)
    except InputError as error:
        logger.warning(error)
