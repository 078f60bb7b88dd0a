"""Advice is given once, and only where threads wait for busy cores."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from leukotree.training import crowding


def test_busy_cores_are_told_with_the_threads_that_they_have_room_for() -> None:
    advice = crowding.advice(threads=2, ran=1.0, waited=7.0, passed=4.0)
    assert advice is not None
    assert advice.startswith(f"2 threads share {len(os.sched_getaffinity(0))} cores with other work (load ")
    assert advice.endswith("they waited 88% of their time for a core; `--threads 1` may be faster")
    many = crowding.advice(threads=64, ran=72.0, waited=150.0, passed=4.0)
    assert many is not None
    assert many.endswith("`--threads 18` may be faster")


@pytest.mark.parametrize(
    ("threads", "ran", "waited"),
    [(2, 7.6, 0.2), (2, 3.0, 0.1), (2, 0.0, 0.0), (1, 1.0, 7.0), (2, 8.0, 4.0)],
    ids=["alone", "waiting for data", "idle", "one thread", "as many cores as threads"],
)
def test_nothing_is_said_where_threads_have_their_cores(threads: int, ran: float, waited: float) -> None:
    assert crowding.advice(threads, ran, waited, passed=4.0) is None


def test_it_looks_once_and_not_at_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowding, "TASKS", tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "schedstat").write_text("1000000000 0 9")
    watches = {threads: crowding.Watch(threads) for threads in (1, 2)}
    (tmp_path / "1" / "schedstat").write_text("1500000000 6000000000 99")
    assert watches[2].look() is None  # too early
    for watch in watches.values():
        watch._began -= crowding.LOOK
    assert watches[1].look() is None
    assert "waited 92% of their time" in str(watches[2].look())
    assert watches[2].look() is None


def test_where_the_kernel_counts_nothing_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowding, "TASKS", tmp_path)
    monkeypatch.setattr(crowding, "LOOK", 0.0)
    assert crowding.used() is None
    assert crowding.Watch(2).look() is None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count")
def test_threads_on_one_core_wait_for_each_other() -> None:
    """Four real threads that compute on one core."""
    allowed, over = os.sched_getaffinity(0), threading.Event()

    def compute() -> None:
        block = bytes(2**22)
        while not over.is_set():
            hashlib.sha256(block)  # without the interpreter's lock

    os.sched_setaffinity(0, {min(allowed)})
    threads = [threading.Thread(target=compute) for _ in range(4)]
    try:
        before = crowding.used()
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        after = crowding.used()
    finally:
        over.set()
        for thread in threads:
            thread.join()
        os.sched_setaffinity(0, allowed)
    assert before is not None
    assert after is not None
    assert after.waited - before.waited > after.ran - before.ran
