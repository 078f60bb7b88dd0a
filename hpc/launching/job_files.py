"""Names of the files that jobs leave in a study's folder. The batch scripts write some of them (see
batch_start.sh and batch_end.sh)."""

from __future__ import annotations

from pathlib import Path

JOBS = "jobs"
"""The folder of logs and batch scripts in a study's folder."""
LOG = "{job}_{task}_log.err"
"""The errors of one rank, as submitit names the file."""


def folder(root: Path) -> Path:
    """The folder of logs and batch scripts of a study."""
    return root / JOBS


def log(root: Path, job: str, task: int = 0) -> Path:
    """The errors of a job's rank `task`; rank 0 is the main one."""
    return folder(root) / LOG.format(job=job, task=task)


def nodes(root: Path, job: str) -> Path:
    """The nodes that a job had."""
    return folder(root) / f"{job}_nodes"


def bad_nodes(root: Path, job: str) -> Path:
    """The nodes of a job on which Python was missing."""
    return folder(root) / f"{job}_bad"


def refused(root: Path, job: str) -> Path:
    """Is there where SLURM refused to queue a job again; the exit code of the job."""
    return folder(root) / f"{job}_refused"


def losses(root: Path, job: str) -> Path:
    """How often a job was queued again because it lost a rank."""
    return folder(root) / f"{job}_lost"


def address(jobs: Path, job: str, start: str) -> Path:
    """The address of the first rank of a job; `start` is how often the job was queued again."""
    return jobs / f"{job}_{start}_address"
