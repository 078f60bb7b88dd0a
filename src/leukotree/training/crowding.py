"""Advice where a process's threads wait for busy cores.

Threads that compute together all wait for the one that waits for a core.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

LOOK = 5.0
"""Seconds of training that are measured."""
MUCH = 0.3
"""Share of their time that ready threads wait for a core, from which on advice is given. On an idle machine
it is a few hundredths."""
TASKS = Path("/proc/self/task")


class Used(NamedTuple):
    """Seconds that the threads of this process have run on cores, and waited for one while they were
    ready."""

    ran: float
    waited: float


def used() -> Used | None:
    """The kernel's counts of this process's threads; None where it does not count them."""
    threads = []
    for path in TASKS.glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # a thread that has just ended
            ran, waited, _ = path.read_text().split()
            threads.append((int(ran) / 1e9, int(waited) / 1e9))
    if not threads:
        return None
    return Used(sum(ran for ran, _ in threads), sum(waited for _, waited in threads))


class Watch:
    """One measurement of `threads` that compute together, over the first LOOK seconds."""

    def __init__(self, threads: int) -> None:
        self._threads, self._began, self._before = threads, time.monotonic(), used() if threads > 1 else None

    def look(self) -> str | None:
        """The advice, once, after LOOK seconds; None before, later, and where the cores are not too busy."""
        if self._before is None or (passed := time.monotonic() - self._began) < LOOK:
            return None
        before, self._before = self._before, None
        now = used()
        return (
            advice(self._threads, now.ran - before.ran, now.waited - before.waited, passed) if now else None
        )


def advice(threads: int, ran: float, waited: float, passed: float) -> str | None:
    """The advice for threads that ran for `ran` seconds and waited for `waited` seconds, in `passed` seconds.

    None where they waited little, or fewer threads would not help.
    """
    share = waited / (ran + waited) if ran + waited > 0 else 0.0
    better = max(1, int(ran / passed))
    if share < MUCH or better >= threads:
        return None
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    shared = f"{threads} threads share {cores} cores with other work (load {load:.1f})"
    return f"{shared}: they waited {share:.0%} of their time for a core; `--threads {better}` may be faster"
