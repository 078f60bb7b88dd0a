"""A request to stop sets a flag, and nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from leukotree import signals


@pytest.mark.parametrize("number", signals.STOPS)
def test_a_signal_sets_the_flag_and_the_next_watch_begins_without_it(number: signal.Signals) -> None:
    with signals.watched():
        assert not signals.requested()
        os.kill(os.getpid(), number)
        assert signals.requested()
        assert signals.received() == number
    with signals.watched():
        assert not signals.requested()


def test_handlers_are_restored() -> None:
    before = {number: signal.getsignal(number) for number in signals.STOPS}
    with signals.watched():
        assert all(signal.getsignal(number) != before[number] for number in signals.STOPS)
    assert {number: signal.getsignal(number) for number in signals.STOPS} == before


def test_outside_the_main_thread_it_changes_nothing() -> None:
    seen = []

    def watch() -> None:
        with signals.watched():
            seen.append(signal.getsignal(signal.SIGUSR2))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGUSR2)]


@pytest.mark.parametrize(
    ("minutes", "left", "leaves"),
    [(60, 121, False), (60, 119, True), (5, 31, False), (5, 29, True), (5, -10, True)],
)
def test_work_stops_before_the_time_limit_of_its_job(
    minutes: int, left: float, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes before the limit; in a short job a tenth of its time."""
    end = time.time() + left
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(int(end) - 60 * minutes))
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(end))
    with signals.watched():
        assert signals.requested() == leaves
        assert signals.reason() == "timeout"


def test_a_signal_long_before_the_limit_is_a_preemption(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signals.reason() == "preempted"
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(time.time()))
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 3600))
    assert signals.reason() == "preempted"


@pytest.mark.parametrize("end", ["", "soon"])
def test_without_a_limit_from_slurm_there_is_none(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_START_TIME", "0")
    monkeypatch.setenv("SLURM_JOB_END_TIME", end)
    with signals.watched():
        assert not signals.requested()
