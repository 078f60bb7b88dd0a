"""Does a process get the cores that its threads ask for? Those that compute together wait for the one that
waits for a core."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

LOOK = 5.0
"""Seconds of training that are looked at."""
MUCH = 0.3
"""Share of their time in which threads that were ready waited for a core, from which on it is said. On an
idle machine it is a few hundredths."""
TASKS = Path("/proc/self/task")


class Used(NamedTuple):
    """What the threads of this process have had so far, in seconds: of cores, and of waiting for one while
    they were ready."""

    ran: float
    waited: float


def used() -> Used | None:
    """As the kernel counts it; None where it does not."""
    found = []
    for path in TASKS.glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # a thread that has just ended
            ran, waited, _ = path.read_text().split()
            found.append((int(ran) / 1e9, int(waited) / 1e9))
    return Used(sum(ran for ran, _ in found), sum(waited for _, waited in found)) if found else None


class Watch:
    """Looks once, LOOK seconds after it was made, with `threads` that compute together."""

    def __init__(self, threads: int) -> None:
        self._threads, self._began, self._before = threads, time.monotonic(), used() if threads > 1 else None

    def look(self) -> str | None:
        """A line about cores that are too busy, where they are; None otherwise, before it is time, and every
        later time."""
        if self._before is None or (passed := time.monotonic() - self._began) < LOOK:
            return None
        before, self._before = self._before, None
        now = used()
        return (
            advice(self._threads, now.ran - before.ran, now.waited - before.waited, passed) if now else None
        )


def advice(threads: int, ran: float, waited: float, passed: float) -> str | None:
    """What to say of threads that had `ran` seconds of cores, and `waited` for one for so long, in `passed`
    seconds."""
    share = waited / (ran + waited) if ran + waited > 0 else 0.0
    better = max(1, int(ran / passed))
    if share < MUCH or better >= threads:
        return None
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    shared = f"{threads} threads share {cores} cores with other work (load {load:.1f})"
    return f"{shared}: they waited {share:.0%} of their time for a core; `--threads {better}` may be faster"
