"""What a sweep shows while its trials run, without Ray's processes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpc.search import tune_callbacks
from hpc.search.trial_queue import TrialQueue
from hpc.search.tune_callbacks import Recorder
from tests.helpers.at_work import study_at_work
from tests.test_progress import seen


class Follower:
    """Counts how often it is told to follow the records."""

    told = 0

    def sync(self) -> None:
        self.told += 1


def test_a_log_has_trials_epochs_time_left_and_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune_callbacks, "LOOK", 0.0)
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    study, record = study_at_work()
    queue, follower = TrialQueue(study, [record]), Follower()
    trial = SimpleNamespace(config={"variant": "flat", "test_fold": 0, "trial": 3, "seed": None})
    with seen(terminal=False) as log, contextlib.ExitStack() as stack:
        recorder = Recorder(queue, False, follower)  # type: ignore[arg-type]
        stack.callback(recorder.on_experiment_end, [])
        recorder.setup()
        clock[0] += 3
        recorder.on_step_begin(1, [])
        queue.started(record, record.trials[3])
        clock[0] += 5
        recorder.on_step_begin(2, [])
        clock[0] += 10
        recorder.on_trial_result(3, [], trial, {"epoch": 1, "macro_f1": 0.25})
    first, second, third = log.getvalue().splitlines()
    assert first == "leukotree: s: 3 of 4 trials (the first trials start), after 3 s"
    assert second.startswith("leukotree: s: 3 of 4 trials (1 running, epoch 2 of 3, about ")
    assert " left; best flat 0.4000), after 8 s" in second
    assert "1 running, epoch 2 of 3" in third
    assert record.trials[3].scores == {1: 0.25}
    assert follower.told == 4


def test_before_the_first_epoch_is_known_it_says_what_the_processes_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study, record = study_at_work()
    for status in record.folder.rglob("status.json"):
        status.unlink()
    queue = TrialQueue(study, [record])
    queue.started(record, record.trials[3])
    with seen(terminal=True) as screen:
        recorder = Recorder(queue, False)
        recorder.setup()
        recorder.on_experiment_end([])
    assert "1 start: each process first imports its packages" in screen.getvalue()
