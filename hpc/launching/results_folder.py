"""Checks of the folder of results: it takes files, keeps locks, and has this machine's time."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hpc.finding import Finding

TEMPORARY = 2**30
"""Bytes that a sweep puts into its temporary folder, at least."""
SKEW = 2.0
"""Seconds by which clocks may differ."""


def check(folder: Path) -> Iterator[Finding]:
    """Findings about the file system of the results: it takes files, keeps locks, and has this machine's
    time."""
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".leukotree-doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            modified, now = os.stat(file.name).st_mtime, time.time()
            yield _locks(file.name, place)
    except OSError as error:
        yield Finding(
            "FAIL", "results", f"{place}: cannot be written: {error.strerror}", "run from a folder of yours"
        )
        return
    yield clock(f"the file system of {place}", abs(now - modified))


def _locks(name: str, place: Path) -> Finding:
    fix = "put results/runs on a file system with flock (NFS 4; Lustre mounted with flock)"
    with open(name, "a") as one, open(name, "a") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Finding("FAIL", "locks", f"{place}: {error.strerror}", fix)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Finding("ok", "locks", f"{place} keeps them")
        return Finding("FAIL", "locks", f"{place}: two processes get the same lock", fix)


def clock(whose: str, difference: float) -> Finding:
    """A finding about a clock that differs from this machine's by `difference` seconds at least."""
    measured = (
        f"within {SKEW:g} s of {whose}" if difference <= SKEW else f"{difference:.0f} s away from {whose}"
    )
    fix = (
        ""
        if difference <= SKEW
        else "ask for time synchronisation (chrony): heartbeats and time limits depend on it"
    )
    return Finding("ok" if difference <= SKEW else "warn", "clock", measured, fix)
