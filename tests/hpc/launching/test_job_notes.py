"""When a process began, by which a local job is known again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from hpc.launching import job_notes


def started(pid: int) -> str | None:
    """The `started` of the note about a local job."""
    return job_notes._started(str(pid))


def test_it_is_in_the_kernels_ticks() -> None:
    """Notes of all versions are compared with it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert started(os.getpid()) == fields[19]


def test_a_process_that_has_ended_has_none() -> None:
    with subprocess.Popen(["true"]) as process:
        deadline = time.monotonic() + 30
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert started(process.pid) is None  # a zombie: nobody has waited for it
    assert started(process.pid) is None


class OldPsutil:
    """An older psutil: the time of the boot is read by `boot_time`, and kept for `create_time`."""

    Error, STATUS_ZOMBIE, STATUS_DEAD = psutil.Error, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD

    def __init__(self) -> None:
        self.clock, self._kept = 1000.0, 0.0

    def boot_time(self) -> float:
        self._kept = self.clock
        return self.clock

    def Process(self, pid: int) -> OldPsutil:
        return self

    def status(self) -> str:
        return psutil.STATUS_RUNNING

    def create_time(self) -> float:
        return 50.0 + (self._kept or self.boot_time())


def test_it_stays_the_same_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job would count as ended, and its runs would be given to another one."""
    old = OldPsutil()
    monkeypatch.setattr(job_notes, "psutil", old)
    before = started(1)
    old.clock += 3600
    assert started(1) == before is not None
