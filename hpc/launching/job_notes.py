"""Which job is to do which run: notes in the study's folder, and whether those jobs are still there."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from hpc.slurm import scheduler
from leukotree.files import append_lines

NOTES = "submitted.jsonl"
ELSEWHERE = 300.0
"""Seconds for which a local job of another host, which cannot be asked from here, counts as at work."""
ABROAD = 7 * 24 * 3600.0
"""Seconds for which a job of another cluster's SLURM, which cannot be asked from here, counts as queued or at
work."""
AT = "@"
"""Between a job's id and its cluster, where that is another one."""


def record(root: Path, run_names: Mapping[str, Iterable[str]], on: str) -> None:
    """Note in the study's folder which job is to do which runs: job id -> names. All at once, as a kill may
    come any time."""
    root.mkdir(parents=True, exist_ok=True)
    note = {
        "on": on,
        "host": socket.gethostname(),
        "time": time.time(),
        "cluster": scheduler.cluster() if on == "slurm" else None,
    }
    started = {job_id: _started(job_id) if on == "local" else None for job_id in run_names}
    append_lines(
        root / NOTES,
        (
            json.dumps({"run_name": name, "job": job_id, "started": started[job_id], **note})
            for job_id, names in run_names.items()
            for name in names
        ),
    )


def notes(root: Path) -> dict[str, dict[str, Any]]:
    """run_name -> the latest note {on, job, host, time, started, cluster} that `record` made about it, and
    `jobs`, the ids of all. Notes of older versions have no cluster."""
    try:
        lines = (root / NOTES).read_text().splitlines()
    except OSError:
        return {}
    latest: dict[str, dict[str, Any]] = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # a line cut short by a kill
            note = json.loads(line)
            name = note.pop("run_name")
            before = latest[name]["jobs"] if name in latest else []
            latest[name] = note | {"jobs": [*before, note["job"]]}
    return latest


def alive(root: Path) -> dict[str, str]:
    """run_name -> job id, for the runs whose job is still waiting or at work. One of another cluster reads
    12_3@cluster: nobody here can ask for it, so it counts as alive for ABROAD seconds. Raises InputError if
    SLURM does not answer."""
    found = notes(root)
    ours = {name: note for name, note in found.items() if note["on"] == "slurm" and not abroad(note)}
    slurm = scheduler.jobs() if ours else set()
    living = {}
    for name, note in found.items():
        if name in ours:
            if note["job"] in slurm:
                living[name] = note["job"]
        elif note["on"] == "slurm":
            if time.time() - note["time"] < ABROAD:
                living[name] = f"{note['job']}{AT}{note['cluster']}"
        elif lives(note):
            living[name] = note["job"]
    return living


def of_this_slurm(root: Path, run_names: Iterable[str]) -> set[str]:
    """Ids of the jobs that these runs were last given to, as far as the SLURM of this cluster knows them."""
    found = notes(root)
    return {
        found[name]["job"]
        for name in run_names
        if name in found and found[name]["on"] == "slurm" and not abroad(found[name])
    }


def abroad(note: Mapping[str, Any]) -> bool:
    """Whether a job of SLURM belongs to another cluster than the one that we talk to; not where either has no
    name. Raises NoAnswer."""
    return note.get("cluster") is not None and scheduler.cluster() not in (note["cluster"], None)


def lives(note: dict[str, Any]) -> bool:
    """Whether the controller process of a local job is alive."""
    if note["host"] != socket.gethostname():
        return time.time() - note["time"] < ELSEWHERE
    return note["started"] is not None and note["started"] == _started(note["job"])


def _started(pid: str) -> str | None:
    """When a living process of this host began, in clock ticks since boot: numbers of processes are used
    again. None for a process that has ended."""
    try:
        process = psutil.Process(int(pid))
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        seconds = process.create_time() - psutil.boot_time()  # ticks stay the same if the clock is set
    except psutil.Error:
        return None
    return str(round(seconds * os.sysconf("SC_CLK_TCK")))
