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


TELL = 15.0
"""Seconds that a failed rank waits before it ends its job, for the main rank to write down why."""


@dataclasses.dataclass
class Job:
    """What submitit pickles: some runs, one after another. A requeued job calls it again, and finished runs
    return at once."""

    specs: Sequence[RunSpec]
    root: Path
    runtime: Runtime

    def __call__(self) -> list[str]:
        """Names of the runs that failed; the reason of each is in the job's log. Raises the error of a lone
        run. Asked to stop, the run saves, and the process ends as `_leave` says."""
        hand_back = signal.getsignal(signal.SIGUSR2)  # submitit's: it queues the job again
        self._check_progress()
        ranks = meeting.export_ranks(job_files.folder(self.root))
        try:
            with signals.watched(), scratch.caches():
                return self._runs(ranks)
        except Preempted as error:
            logger.warning(error)
            _leave(hand_back if callable(hand_back) else None)
            raise  # not reached

    @property
    def run_names(self) -> list[str]:
        return [spec.run_name for spec in self.specs]

    def _check_progress(self) -> None:
        """A job that was queued again and again must have come further. Then its losses of ranks count anew,
        too. Raises RunFailed."""
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        states = [run_states.read(self.root / name) for name in self.run_names]
        open_names = [state.run_name for state in states if state.begun and state.state != "done"]
        if restarts > caps.RUN_ENDS["preempted"] and not any(
            retries.judge(self.root, name, None, anew=False).again for name in open_names
        ):
            raise RunFailed(
                f"the job was queued again {restarts} times and comes no further; see its log", "node"
            )
        if restarts and any(not retries.fruitless(self.root / name, "node") for name in open_names):
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
                what = failures.kind_here(error, spec)
                print(
                    f"{spec.run_name}: {what}: {one_line(error)}", file=sys.stderr
                )  # `failures.said` looks for it
                if os.environ.get("RANK", "0") != "0":
                    time.sleep(TELL)
                if what == "node" and (ranks > 1 or len(self.specs) == 1):
                    sys.exit(os.EX_TEMPFAIL)  # the end of the batch script knows this code
                # After an error the ranks may stand at different places: nothing more can be done in this
                # job.
                if ranks > 1 or len(self.specs) == 1:
                    raise
                failed.append(spec.run_name)
        return failed

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit at a preemption or a timeout: the same job again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _run(spec: RunSpec, root: Path, runtime: Runtime) -> None:
    from hpc.launching import health
    from leukotree.training import run

    inspect = functools.partial(health.require, root) if "SLURM_JOB_ID" in os.environ else None
    try:
        run.run(spec, root, runtime, inspect)
    except Busy:
        time.sleep(failures.HELD)
        run.run(spec, root, runtime, inspect)


def _leave(hand_back: Callable[..., Any] | None) -> None:
    """End this process of a job, whose runs are saved, so that the job is queued again where it should be.

    SLURM itself queues it again after `scontrol requeue` and after most preemptions, and must not after
    `scancel`; then it is completing. After SIGUSR2 (near the time limit, or a preemption) and in the time
    that a preemption grants, submitit's handler does it. The other ranks leave without an error, which would
    end the main rank in the midst of that.
    """
    import submitit

    job = submitit.JobEnvironment()
    if job.global_rank != 0:
        sys.exit(0)
    if (
        job.cluster == "slurm"
        and hand_back is not None
        and (signals.received() != signal.SIGTERM or own_job.is_running(job.job_id))
    ):
        try:
            hand_back(signal.SIGUSR2, None)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            _queue_again(job.job_id)
    sys.exit(os.EX_TEMPFAIL)


def _queue_again(job_id: str) -> None:
    """Ask SLURM more patiently than submitit's handler does. Where it refuses, the end of the batch script
    asks it once more, and notes that."""
    try:
        own_job.requeue(job_id)
    except InputError as error:
        logger.warning(error)
