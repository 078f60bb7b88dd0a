"""The writer's thread does jobs in order, and none after a failure."""

from __future__ import annotations

import threading

import pytest

from leukotree.training.writer import Writer


def full_disk() -> None:
    raise OSError(28, "No space left on device")


def test_jobs_are_done_in_order_and_beside_the_caller() -> None:
    done: list[int] = []
    gate = threading.Event()
    with Writer() as writer:
        writer.submit(gate.wait)
        for number in range(20):
            writer.submit(lambda number=number: done.append(number))
        assert done == []  # the caller went on while the first job waits
        gate.set()
        writer.wait()
        assert done == list(range(20))


def test_after_a_failure_nothing_is_written_and_whoever_asks_is_told() -> None:
    done: list[str] = []
    gate = threading.Event()
    writer = Writer()
    writer.submit(gate.wait)
    writer.submit(full_disk)
    writer.submit(lambda: done.append("claim"))
    assert not writer.failed
    gate.set()
    writer.wait()
    assert writer.failed
    writer.submit(lambda: done.append("later"))
    for ask in (writer.check, lambda: writer.__exit__(None, None, None)):
        with pytest.raises(OSError, match="No space"):
            ask()
    assert done == []


def test_a_failure_of_the_last_job_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="No space"), Writer() as writer:
        writer.submit(full_disk)


def train_badly() -> None:
    with Writer() as writer:
        writer.submit(full_disk)
        raise ValueError("loss")


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_writer() -> None:
    with pytest.raises(ValueError, match="loss"):
        train_badly()


def test_who_stops_a_run_hears_that_its_last_epoch_was_not_saved() -> None:
    def run():
        with Writer() as writer:
            writer.submit(full_disk)
            yield

    epochs = run()
    next(epochs)
    with pytest.raises(OSError, match="No space"):
        epochs.close()
