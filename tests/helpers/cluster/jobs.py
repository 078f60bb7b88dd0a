"""What the cluster's tests share: asking for jobs and waiting for them."""

from __future__ import annotations

import time

import pytest

from tests.helpers.cluster.slurm import Slurm

OPEN = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED"}


def states(slurm: Slurm, job: str) -> dict[str, str]:
    """State of each job of an id (an array has several), as accounting knows it: {"12_0": "COMPLETED"}."""
    lines = slurm.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "jobid,state").splitlines()
    return dict(line.split("|") for line in lines)


def wait_for_jobs(slurm: Slurm, *jobs: str, count: int | None = None, seconds: float = 240) -> dict[str, str]:
    """Accounting's states of jobs once they have ended: `count` of them, as the tasks of an array count each.

    Fails with the queue if they have not after `seconds`.
    """
    end = time.monotonic() + seconds
    found: dict[str, str] = {}
    while time.monotonic() < end:
        queue = set(slurm.run("squeue", "-h", "-o", "%F").split())
        found = {job: state for asked in jobs for job, state in states(slurm, asked).items()}
        # Accounting hears of a job a moment after the queue, and of its end too.
        if (
            not queue.intersection(jobs)
            and len(found) >= (count or len(jobs))
            and not OPEN.intersection(found.values())
        ):
            return found
        time.sleep(0.5)
    pytest.fail(f"jobs {', '.join(jobs)} did not end in {seconds:.0f} s: {found}\n{slurm.run('squeue')}")
