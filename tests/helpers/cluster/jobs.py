"""Jobs on the test SLURM: their states, and waiting for their end."""

from __future__ import annotations

import time

import pytest

from tests.helpers.cluster.slurm import Slurm

OPEN = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED"}


def states(slurm: Slurm, job: str) -> dict[str, str]:
    """Accounting's state of each job of an id, as in {"12_0": "COMPLETED"}. An array has several jobs."""
    lines = slurm.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "jobid,state").splitlines()
    return dict(line.split("|") for line in lines)


def wait_for_jobs(slurm: Slurm, *jobs: str, count: int | None = None, seconds: float = 240) -> dict[str, str]:
    """Accounting's states of jobs after their end. `count`: how many there are; each task of an array counts.

    Fails after `seconds`, and shows the queue.
    """
    end = time.monotonic() + seconds
    ended: dict[str, str] = {}
    while time.monotonic() < end:
        queue = set(slurm.run("squeue", "-h", "-o", "%F").split())
        ended = {job: state for asked in jobs for job, state in states(slurm, asked).items()}
        # Accounting is a moment behind the queue.
        if (
            not queue.intersection(jobs)
            and len(ended) >= (count or len(jobs))
            and not OPEN.intersection(ended.values())
        ):
            return ended
        time.sleep(0.5)
    pytest.fail(f"jobs {', '.join(jobs)} did not end in {seconds:.0f} s: {ended}\n{slurm.run('squeue')}")
