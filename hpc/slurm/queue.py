"""This user's jobs in SLURM's queue: one call of squeue, whatever their number. It needs no accounting."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from hpc.slurm import scheduler

BETWEEN = "\x1f"
"""The character between two fields, the unit separator: no name, path or reason has it."""
FORMAT = BETWEEN.join(("%i", "%T", "%N", "%L", "%r", "%Z", "%o", "%j"))


@dataclass(frozen=True)
class QueuedJob:
    """One job, or element of an array, that SLURM holds or runs."""

    job: str
    """Its id; 12_3 for an element of an array."""
    state: str
    """PENDING, RUNNING, COMPLETING, ..."""
    nodes: str
    left: str
    """Time left of its limit, as [days-]hours:minutes:seconds."""
    reason: str
    """Why it waits, in SLURM's words; empty if there is no reason."""
    workdir: str
    command: str
    """Its batch script and the script's arguments; "(null)" for `sbatch --wrap`."""
    name: str


def here() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def look() -> dict[str, QueuedJob]:
    """Job id -> job. Raises NoAnswer if SLURM does not answer."""
    return {job.job: job for line in scheduler.listed(FORMAT, pauses=()) if (job := _parse(line)).job}


def _parse(line: str) -> QueuedJob:
    fields = line.split(BETWEEN, 7)
    job = QueuedJob(*fields, *[""] * (8 - len(fields)))
    return QueuedJob(**{**vars(job), "reason": ""}) if job.reason == "None" else job
