"""`leukotree cancel`: ends all jobs of a study, queued or running. Runs that have begun save first; folders
stay."""

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
"""Seconds that jobs have to save and end; SLURM grants them half a minute by default."""
POLL = 2.0
"""Seconds between two looks."""
ENDED = re.compile("Invalid job id|already completing")
"""What scancel prints about jobs that have ended."""
MANY = 500
"""Jobs in one call of scancel."""


@dataclass
class Work:
    """The queued and running jobs of a study."""

    slurm: dict[str, QueuedJob] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """Id of a job of SLURM -> what it does: "run", "sweep", ..."""
    local: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Process of a local job of this host -> its note."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Process of a local job that seems to run on another host -> that host."""

    def __bool__(self) -> bool:
        return bool(self.slurm or self.local or self.elsewhere)

    def lines(self) -> list[str]:
        """A line for each job and array."""
        counts: dict[tuple[str, str], Counter[str]] = {}
        for id_, job in self.slurm.items():
            counts.setdefault((scheduler.array(id_), self.kinds[id_]), Counter())[job.state.lower()] += 1
        jobs = [
            f"job {job} ({kind}): " + ", ".join(f"{count} {state}" for state, count in states.items())
            for (job, kind), states in counts.items()
        ]
        local = [f"local job {pid}" for pid in self.local]
        return jobs + local + [f"local job {pid} on {host}" for pid, host in self.elsewhere.items()]


def find_work(root: Path) -> Work:
    """The jobs that there are to cancel. Raises NoAnswer if jobs were submitted to a SLURM that does not
    answer."""
    notes = job_notes.notes(root)
    work = Work()
    if queue.here() or any(note["on"] == "slurm" for note in notes.values()):
        jobs = queue.look()
        work.kinds = study_jobs.of_study(root, jobs)
        work.slurm = {job: jobs[job] for job in work.kinds}
    for name, note in notes.items():
        if note["on"] != "local" or not (job_notes.is_alive(note) or _has_heartbeat(root, name, note)):
            continue
        if note["host"] == socket.gethostname():
            work.local[note["job"]] = note
        else:
            work.elsewhere[note["job"]] = note["host"]
    return work


def _has_heartbeat(root: Path, run_name: str, note: dict[str, Any]) -> bool:
    """Whether the run of a job of another host has a recent heartbeat."""
    return note["host"] != socket.gethostname() and run_states.read(root / run_name).state == "running"


def cancel(root: Path) -> list[str]:
    """End all jobs of a study, and wait until they have ended. Returns a line for each that did not end.

    Nothing can be queued meanwhile: a command that submits needs the lock that is held here, and then sees
    that the study is cancelled. Raises InputError if SLURM does not answer, or if another command submits for
    minutes.
    """
    root.mkdir(parents=True, exist_ok=True)
    cancelled.note(root)
    signalled: set[str] = set()
    messages: dict[str, str] = {}
    with sender.submitting(root):
        left = _round(root, signalled, messages)
    end = time.monotonic() + PATIENCE
    while (left.slurm or left.local) and not messages and time.monotonic() < end:
        time.sleep(POLL)
        left = _round(root, signalled, messages)  # a job that was submitted a moment ago has to be found, too
    stay = {id_: job for id_, job in left.slurm.items() if job.state != "COMPLETING"}
    refused = [
        f"job {id_}: still {job.state.lower()}; {messages.get(scheduler.array(id_), 'see squeue')}"
        for id_, job in stay.items()
    ]
    refused += [f"local job {pid}: still at work; {messages.get(pid, 'see its log')}" for pid in left.local]
    refused += [
        f"local job {pid}: on {host}; give the command there, too" for pid, host in left.elsewhere.items()
    ]
    return refused or _without_job(root)


def _without_job(root: Path) -> list[str]:
    """A line for each run that runs in no job, as with `--on inline`."""
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


def _round(root: Path, signalled: set[str], messages: dict[str, str]) -> Work:
    """Cancel the jobs that there are, and return them. Jobs that wait are cancelled first: one that waits for
    others would begin when they end."""
    left = find_work(root)
    open_jobs = {id_: job for id_, job in left.slurm.items() if job.state != "COMPLETING"}
    waiting = {id_ for id_, job in open_jobs.items() if job.state == "PENDING"}
    after = [job for job in waiting if left.kinds[job] not in ("run", "sweep", "worker")]
    _scancel(after, messages)
    _scancel([job for job in waiting if left.kinds[job] in ("run", "sweep")], messages, "--state=PENDING")
    _scancel(
        [job for job in open_jobs if left.kinds[job] == "sweep"], messages
    )  # it submits runs and workers
    _scancel([job for job in open_jobs if job not in waiting or left.kinds[job] == "worker"], messages)
    for pid, note in left.local.items():
        if pid not in signalled:
            signalled.add(pid)
            _terminate(pid, note, messages)
    return left


def _scancel(jobs: Iterable[str], messages: dict[str, str], *options: str) -> None:
    arrays = sorted({scheduler.array(job) for job in jobs}, key=int)
    for start in range(0, len(arrays), MANY):
        part = arrays[start : start + MANY]
        try:
            scheduler.ask("scancel", *options, *part, pauses=scheduler.PAUSES[:2])
        except InputError as error:
            if not ENDED.search(str(error)):
                messages.update(dict.fromkeys(part, one_line(error)[-300:]))


def _terminate(pid: str, note: Mapping[str, Any], messages: dict[str, str]) -> None:
    """Send SIGTERM to the process that was noted, and to no later process of the same number."""
    try:
        process = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    try:
        if job_notes.is_alive(dict(note)):
            signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        messages[pid] = "it is another user's"
    finally:
        os.close(process)


def confirmed(root: Path, work: Work) -> bool:
    """Whether the person at this terminal agrees. Raises InputError without a terminal."""
    if not sys.stdin.isatty():
        many = f"{len(work.lines())} jobs or arrays would be ended"
        raise InputError(f"{root.name}: {many}; add --yes to do it, or --dry-run to see them")
    print(*work.lines(), sep="\n")
    try:
        return input(f"End all of this of {root.name}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        print()
        return False
