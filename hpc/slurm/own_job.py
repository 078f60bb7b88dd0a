"""The job that this process is in: whether SLURM still counts it as running, and its requeue.

`python -m hpc.slurm.own_job JOB` has exit code 0 if this start of the job is running, 1 if not.
`python -m hpc.slurm.own_job --head JOB` has exit code 3 if another job, whatever its start, is not running: a
Python that breaks must not look like that. The scripts of slurm/ ask it; the end of a batch script asks SLURM
itself, because Python may not start there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from hpc.slurm import scheduler
from hpc.slurm.scheduler import NoAnswer, SlurmError

NOT_RUNNING = 3
"""Exit code for another job that is not running."""


def is_running(job_id: str) -> bool:
    """Whether SLURM counts this start of the job as running, and has not begun to end it. False where SLURM
    does not say."""
    command = ["squeue", "--all", "--noheader", "--jobs", job_id, "--Format=state,restartcnt"]
    try:
        answer = scheduler.ask(*command).split()
    except SlurmError:
        return False
    return answer == ["RUNNING", os.environ.get("SLURM_RESTART_COUNT", "0")]


def head_is_running(job_id: str) -> bool:
    """Whether the job of a search, which a worker belongs to, is running. Raises NoAnswer."""
    command = ["squeue", "--all", "--noheader", "--jobs", job_id, "--Format=state"]
    try:
        return scheduler.ask(*command, pauses=()).split() == ["RUNNING"]
    except scheduler.Refused:  # SLURM has forgotten it
        return False


def requeue(job_id: str) -> None:
    """Let SLURM queue the job of this process again. Raises Refused, or NoAnswer."""
    for pause in (*scheduler.PAUSES, None):
        try:
            scheduler.ask("scontrol", "requeue", job_id, pauses=())
            return
        except NoAnswer:
            if not is_running(job_id):  # SLURM has taken the request
                return
            if pause is None:
                raise
            time.sleep(pause)


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer by the exit code, as above. Returns 2 for other arguments."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    match words:
        case ["--head", job_id]:
            try:
                return 0 if head_is_running(job_id) else NOT_RUNNING
            except NoAnswer:
                return os.EX_TEMPFAIL
        case [job_id]:
            return int(not is_running(job_id))
    print("usage: python -m hpc.slurm.own_job [--head] JOB", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
