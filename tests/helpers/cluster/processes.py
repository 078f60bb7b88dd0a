"""Processes: run one, recognise one, wait for one, end one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class ClusterError(RuntimeError):
    """The test SLURM cannot run here. The message is one line that names what is missing."""


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None without such a process. A later process of the
    same pid has another start."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 120) -> None:
    """Poll until `ready()`. Raises ClusterError naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise ClusterError(f"{what}: not ready after {seconds:.0f} s")
        time.sleep(0.1)


def command(*words: str, **options) -> subprocess.CompletedProcess[str]:
    """Run to its end, output kept as text. Raises ClusterError with the last line of its stderr if it
    fails."""
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise ClusterError(f"{' '.join(words[:4])}: {last}")
    return done


def end(pid: int, start: int, how: signal.Signals = signal.SIGTERM) -> None:
    """End the process of this pid and start time, after 15 s by SIGKILL. Otherwise do nothing."""
    for number in (how, signal.SIGKILL):
        if process_start(pid) != start:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        with contextlib.suppress(ClusterError):
            wait_for(f"process {pid}", lambda: process_start(pid) != start, 15)
