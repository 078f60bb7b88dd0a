"""attempts.jsonl: one line for each start of a run or of a sweep, in its folder.

A line has the time, host, process and SLURM job of the start, how far the work was (`at`), and the code.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leukotree import files
from leukotree.records import origin

FILE = "attempts.jsonl"
_TEXTS = ("commit", "version", "code")
"""Keys whose values are texts or null."""


def note(folder: Path, at: int, **fields: Any) -> None:
    """Append the start of this process. `at` is how far the work was, 0 for none. Raises OSError."""
    attempt = {"started": time.time(), "host": socket.gethostname(), "pid": os.getpid(), **fields}
    files.append_lines(folder / FILE, [json.dumps({**attempt, "at": at, **origin.here()})])


def read(folder: Path) -> list[dict[str, Any]]:
    """The attempts in a folder, the first one first. Lines that a kill cut short are left out, and keys of
    the code whose value is not a text."""
    return [
        {key: value for key, value in row.items() if key not in _TEXTS or isinstance(value, str | None)}
        for row in files.read_json_lines(folder / FILE)
    ]


def slurm_job() -> dict[str, str]:
    """The SLURM job of this process: its ids by name, {} outside of a job."""
    names = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
    return {name.lower(): os.environ[name] for name in names if name in os.environ}


def is_of_job(attempt: Mapping[str, Any], job: str) -> bool:
    """Whether an attempt was made in a SLURM job, such as "12" or "12_3"."""
    element = f"{attempt.get('slurm_array_job_id')}_{attempt.get('slurm_array_task_id')}"
    return job in (element, attempt.get("slurm_job_id"))
