"""Requests to stop: a signal only sets a flag. Loops read the flag at points where they can save."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from leukotree.errors import Kind, Preempted

STOPS = (signal.SIGTERM, signal.SIGUSR2)
"""Signals that schedulers send before they end a job: at a preemption, and before a time limit."""
MARGIN = 120.0
"""Seconds before the end of a SLURM job at which its work saves and stops, also without a signal. A tenth of
the job's time if that is less."""

_received: int | None = None


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Within, the signals in `STOPS` set the flag and do not end this process. The flag is cleared at the
    start, and the handlers are restored at the end. Only the main thread may set handlers: in another thread
    this does nothing."""
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
    """The signal that was received, or None."""
    return _received


def requested() -> bool:
    """Whether to save and stop: a signal was received, or the job's time is nearly over."""
    return _received is not None or time.time() > _end()


def stop_if_requested(done: str) -> None:
    """Raise Preempted after a request to stop. `done`: how far the work is."""
    if requested():
        raise Preempted(done)


def sleep(seconds: float, done: str) -> None:
    """Wait, unless there is a request to stop: then raise Preempted. `done`: as for `stop_if_requested`."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if requested():
            raise Preempted(done, reason())
        time.sleep(min(0.2, left))


def cause() -> str:
    """What a request came from, for people."""
    if _received is not None:
        return signal.Signals(_received).name
    return "the job's time is nearly over" if requested() else "another rank was asked"


def reason() -> Kind:
    """The kind of end that a request stands for: "timeout" if the job's time is nearly over, else
    "preempted"."""
    return "timeout" if time.time() > _end() - MARGIN else "preempted"


def _end() -> float:
    """When work has to stop (unix seconds). Infinity outside of a SLURM job, or where SLURM gives no end."""
    try:
        start, end = (float(os.environ[f"SLURM_JOB_{name}_TIME"]) for name in ("START", "END"))
    except (KeyError, ValueError):
        return float("inf")
    return end - min(MARGIN, 0.1 * (end - start))
