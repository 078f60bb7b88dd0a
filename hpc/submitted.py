"""Which job is to do which run: notes in the study's folder, and whether those jobs are still there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from leukotree.errors import InputError
from leukotree.files import append_lines

NOTES = "submitted.jsonl"
ELSEWHERE = 300.0
"""Seconds for which a local job of another host, which cannot be asked from here, counts as at work."""


def record(root: Path, run_names: Mapping[str, Iterable[str]], on: str) -> None:
    """Note in the study's folder which job is to do which runs: job id -> names. All at once, as a kill may come any time."""
    root.mkdir(parents=True, exist_ok=True)
    note = {"on": on, "host": socket.gethostname(), "time": time.time()}
    started = {job_id: _started(job_id) if on == "local" else None for job_id in run_names}
    append_lines(root / NOTES, (
        json.dumps({"run_name": name, "job": job_id, "started": started[job_id], **note})
        for job_id, names in run_names.items() for name in names
    ))  # fmt: skip


def notes(root: Path) -> dict[str, dict[str, Any]]:
    """run_name -> the latest note {on, job, host, time, started} that `record` made about it, and `times`, how many."""
    try:
        lines = (root / NOTES).read_text().splitlines()
    except OSError:
        return {}
    latest: dict[str, dict[str, Any]] = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # a line cut short by a kill
            note = json.loads(line)
            name = note.pop("run_name")
            latest[name] = note | {"times": latest.get(name, {"times": 0})["times"] + 1}
    return latest


def alive(root: Path) -> dict[str, str]:
    """run_name -> job id, for the runs whose job is still waiting or at work. Raises InputError if SLURM does not answer."""
    found = notes(root)
    slurm = _slurm_jobs() if any(note["on"] == "slurm" for note in found.values()) else set()
    living = {name: note["job"] in slurm if note["on"] == "slurm" else _lives(note) for name, note in found.items()}
    return {name: note["job"] for name, note in found.items() if living[name]}


def _slurm_jobs() -> set[str]:
    """Ids of this user's jobs that SLURM holds or runs, elements of arrays as 12_3. Asks squeue: it needs no accounting."""
    if not shutil.which("squeue"):
        raise InputError("squeue: not found, so jobs submitted earlier cannot be followed; run this where SLURM is")
    command = ["squeue", "--all", "--noheader", "--array", "--format=%i", "--user", str(os.getuid())]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise InputError("squeue: no answer within a minute; try again when SLURM answers") from None
    if answer.returncode:
        raise InputError(f"squeue: {' '.join(answer.stderr.split()) or 'failed'}; try again when SLURM answers")
    return set(answer.stdout.split())


def _lives(note: dict[str, Any]) -> bool:
    """Whether the controller process of a local job is alive."""
    if note["host"] != socket.gethostname():
        return time.time() - note["time"] < ELSEWHERE
    return note["started"] is not None and note["started"] == _started(note["job"])


def _started(pid: str) -> str | None:
    """When a living process of this host began, in clock ticks since boot: numbers of processes are used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if fields[0] not in "ZX" else None
