"""A request to stop: a signal sets a flag, and loops look at it where they can save. Nothing else happens in
a handler."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from leukotree.errors import Kind

STOPS = (signal.SIGTERM, signal.SIGUSR2)
"""What schedulers send before they take a job's place: at a preemption, and ahead of a time limit."""
MARGIN = 120.0
"""Seconds before the end of a SLURM job at which its work leaves by itself, also where nobody asked for a
signal; a tenth of its time if that is less."""

_received: int | None = None


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Let `STOPS` set the flag instead of ending this process; the flag is down at the start, and handlers
    are put back at the end. Outside the main thread, which alone may do so, it changes nothing."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received = None
    before = {number: signal.signal(number, _note) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def received() -> int | None:
    """The signal that came, or None."""
    return _received


def requested() -> bool:
    """Whether to save and leave: a signal came, or the job's time is nearly over."""
    return _received is not None or time.time() > _end()


def cause() -> str:
    """What a request came from, for people."""
    if _received is not None:
        return signal.Signals(_received).name
    return "the job's time is nearly over" if requested() else "another rank was asked"


def reason() -> Kind:
    """What kind of end a request means: "timeout" where the job's time is nearly over, also if a signal said
    so first."""
    return "timeout" if time.time() > _end() - MARGIN else "preempted"


def _end() -> float:
    """When work has to leave its SLURM job (unix seconds); infinity without one, or where SLURM does not
    say."""
    try:
        start, end = (float(os.environ[f"SLURM_JOB_{name}_TIME"]) for name in ("START", "END"))
    except (KeyError, ValueError):
        return float("inf")
    return end - min(MARGIN, 0.1 * (end - start))
