"""`leukotree cancel`: the end of all that a study has queued or at work. What has begun is told to save;
folders stay."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hpc.launching import cancelled, job_notes, run_states, sender, study_jobs
from hpc.slurm import queue, scheduler
from hpc.slurm.queue import QueuedJob
from leukotree.errors import InputError, one_line
from leukotree.records import attempts

PATIENCE = 120.0
"""Seconds for jobs to save and leave; SLURM grants them half a minute by default."""
POLL = 2.0
GONE = re.compile("Invalid job id|already completing")
"""What scancel says of jobs that have ended."""
MANY = 500
"""Jobs in one call of scancel."""


@dataclass
class Living:
    """What a study has queued or at work."""

    slurm: dict[str, QueuedJob] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """Id of a job of SLURM -> what it does: "run", "sweep", ..."""
    local: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Process of a local job of this host -> its note."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Process of a local job of another host, as far as one can tell from here -> that host."""

    def __bool__(self) -> bool:
        return bool(self.slurm or self.local or self.elsewhere)

    def lines(self) -> list[str]:
        """A line for each job and array."""
        counts: dict[tuple[str, str], Counter[str]] = {}
        for job, found in self.slurm.items():
            counts.setdefault((scheduler.array(job), self.kinds[job]), Counter())[found.state.lower()] += 1
        jobs = [
            f"job {job} ({kind}): " + ", ".join(f"{count} {state}" for state, count in states.items())
            for (job, kind), states in counts.items()
        ]
        local = [f"local job {pid}" for pid in self.local]
        return jobs + local + [f"local job {pid} on {host}" for pid, host in self.elsewhere.items()]


def living(root: Path) -> Living:
    """What there is to cancel. Raises InputError where jobs were submitted to a SLURM that does not
    answer."""
    notes = job_notes.notes(root)
    found = Living()
    if queue.here() or any(note["on"] == "slurm" for note in notes.values()):
        jobs = queue.look()
        found.kinds = study_jobs.of_study(root, jobs)
        found.slurm = {job: jobs[job] for job in found.kinds}
    for name, note in notes.items():
        if note["on"] != "local" or not (job_notes.lives(note) or _beats(root, name, note)):
            continue
        if note["host"] == socket.gethostname():
            found.local[note["job"]] = note
        else:
            found.elsewhere[note["job"]] = note["host"]
    return found


def _beats(root: Path, run_name: str, note: dict[str, Any]) -> bool:
    """Whether a run of another host's job gave a sign of life lately."""
    return note["host"] != socket.gethostname() and run_states.read(root / run_name).state == "running"


def cancel(root: Path) -> list[str]:
    """End it all, and wait until it has left. Returns what would not, a line each.

    Nothing can be queued meanwhile: a command that submits holds the lock that is held here, and sees then
    that the study is cancelled. Raises InputError if SLURM does not answer, or if another command submits for
    minutes.
    """
    root.mkdir(parents=True, exist_ok=True)
    cancelled.note(root)
    told: set[str] = set()
    said: dict[str, str] = {}
    with sender.submitting(root):
        left = _round(root, told, said)
    end = time.monotonic() + PATIENCE
    while (left.slurm or left.local) and not said and time.monotonic() < end:
        time.sleep(POLL)
        left = _round(root, told, said)  # a job that was just submitting has to be found, too
    stay = {job: found for job, found in left.slurm.items() if found.state != "COMPLETING"}
    refused = [
        f"job {job}: still {found.state.lower()}; {said.get(scheduler.array(job), 'see squeue')}"
        for job, found in stay.items()
    ]
    refused += [f"local job {pid}: still at work; {said.get(pid, 'see its log')}" for pid in left.local]
    refused += [
        f"local job {pid}: on {host}; give the command there, too" for pid, host in left.elsewhere.items()
    ]
    return refused or _without_job(root)


def _without_job(root: Path) -> list[str]:
    """A line for each run that is at work in no job, as with `--on inline`."""
    lines = []
    for run in run_states.scan(root):
        if run.state == "running" and run.job is None:
            with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
                last = attempts.read(root / run.run_name)[-1]
                here = last["host"] == socket.gethostname()
                if "slurm_job_id" not in last and (not here or psutil.pid_exists(last["pid"])):
                    process = f"process {last['pid']} of {last['host']}"
                    lines.append(f"{run.run_name}: at work in {process}, which is no job; end that command")
    return lines


def _round(root: Path, told: set[str], said: dict[str, str]) -> Living:
    """Cancel what is there, and return it. What waits goes first: a job that waits for others would begin
    when they end."""
    left = living(root)
    open_jobs = {job: found for job, found in left.slurm.items() if found.state != "COMPLETING"}
    waiting = {job for job, found in open_jobs.items() if found.state == "PENDING"}
    after = [job for job in waiting if left.kinds[job] not in ("run", "sweep", "worker")]
    _scancel(after, said)
    _scancel([job for job in waiting if left.kinds[job] in ("run", "sweep")], said, "--state=PENDING")
    _scancel([job for job in open_jobs if left.kinds[job] == "sweep"], said)  # it submits runs and workers
    _scancel([job for job in open_jobs if job not in waiting or left.kinds[job] == "worker"], said)
    for pid, note in left.local.items():
        if pid not in told:
            told.add(pid)
            _tell(pid, note, said)
    return left


def _scancel(jobs: Iterable[str], said: dict[str, str], *options: str) -> None:
    arrays = sorted({scheduler.array(job) for job in jobs}, key=int)
    for start in range(0, len(arrays), MANY):
        part = arrays[start : start + MANY]
        try:
            scheduler.ask("scancel", *options, *part, pauses=scheduler.PAUSES[:2])
        except InputError as error:
            if not GONE.search(str(error)):
                said.update(dict.fromkeys(part, one_line(error)[-300:]))


def _tell(pid: str, note: Mapping[str, Any], said: dict[str, str]) -> None:
    """SIGTERM to the process that was noted, and to no later one of its number."""
    try:
        process = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    try:
        if job_notes.lives(dict(note)):
            signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        said[pid] = "it is another user's"
    finally:
        os.close(process)


def confirmed(root: Path, found: Living) -> bool:
    """Whether the person at this terminal says yes. Raises InputError where nobody is there."""
    if not sys.stdin.isatty():
        many = f"{len(found.lines())} jobs or arrays would be ended"
        raise InputError(f"{root.name}: {many}; add --yes to do it, or --dry-run to see them")
    print(*found.lines(), sep="\n")
    try:
        return input(f"End all of this of {root.name}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        print()
        return False
