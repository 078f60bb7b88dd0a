"""Notes in the study's folder which job does which run, and whether those jobs still wait or run."""

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
OTHER_HOST_SECONDS = 300.0
"""How long a local job of another host, which cannot be seen from here, counts as running."""
OTHER_CLUSTER_SECONDS = 7 * 24 * 3600.0
"""How long a job of another cluster's SLURM, which cannot be asked from here, counts as waiting or
running."""
AT = "@"
"""Separates the id of a job from its cluster, where that is another cluster."""


def record(root: Path, run_names: Mapping[str, Iterable[str]], on: str) -> None:
    """Note in the study's folder which job does which runs: job id -> names. All notes are written at once,
    since this process may be killed at any time."""
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
    """run_name -> the latest note {on, job, host, time, started, cluster} that `record` made about the run,
    and `jobs`, the ids of all its jobs. Notes of older versions have no cluster."""
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
    """run_name -> job id, for the runs whose job still waits or runs. The id of a job of another cluster is
    12_3@cluster: it cannot be asked for from here, so it counts for OTHER_CLUSTER_SECONDS. Raises
    NoAnswer."""
    all_notes = notes(root)
    here = {
        name for name, note in all_notes.items() if note["on"] == "slurm" and not on_another_cluster(note)
    }
    queued = scheduler.jobs() if here else set()
    jobs = {}
    for name, note in all_notes.items():
        if name in here:
            if note["job"] in queued:
                jobs[name] = note["job"]
        elif note["on"] == "slurm":
            if time.time() - note["time"] < OTHER_CLUSTER_SECONDS:
                jobs[name] = f"{note['job']}{AT}{note['cluster']}"
        elif is_alive(note):
            jobs[name] = note["job"]
    return jobs


def of_this_slurm(root: Path, run_names: Iterable[str]) -> set[str]:
    """Ids of the jobs that these runs were last given to, without those of other clusters. Raises
    NoAnswer."""
    all_notes = notes(root)
    latest = (all_notes[name] for name in run_names if name in all_notes)
    return {note["job"] for note in latest if note["on"] == "slurm" and not on_another_cluster(note)}


def on_another_cluster(note: Mapping[str, Any]) -> bool:
    """Whether a job of SLURM belongs to another cluster than this one; False where either has no name. Raises
    NoAnswer."""
    return note.get("cluster") is not None and scheduler.cluster() not in (note["cluster"], None)


def is_alive(note: dict[str, Any]) -> bool:
    """Whether the process that controls a local job is alive."""
    if note["host"] != socket.gethostname():
        return time.time() - note["time"] < OTHER_HOST_SECONDS
    return note["started"] is not None and note["started"] == _started(note["job"])


def _started(pid: str) -> str | None:
    """When a living process of this host began, in clock ticks since boot: numbers of processes are used
    again. None for a process that has ended."""
    try:
        boot = psutil.boot_time()  # first: older versions of psutil keep it for `create_time`
        process = psutil.Process(int(pid))
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        seconds = process.create_time() - boot  # ticks stay the same if the clock is set
    except psutil.Error:
        return None
    return str(round(seconds * os.sysconf("SC_CLK_TCK")))
