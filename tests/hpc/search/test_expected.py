"""The reports that trials are expected to make, against the scheduler itself."""

from __future__ import annotations

import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from hpc.search import early_stopping, expected, rungs
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study

FLAT = SearchId("flat", 0)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    search = {"trials": 20, "grace": 4, "space": {"loss.gamma": {"uniform": [0, 5]}}}
    return Study.model_validate({"study": "s", "base": {"optim": {"epochs": 30}}, "search": search})


def _trained(study: Study, scores: np.ndarray) -> int:
    """Reports that trials with these scores make one after another under Ray's ASHA."""
    asha = early_stopping.scheduler(study, [Record(study, FLAT)])
    total, controller = 0, SimpleNamespace()
    for number, score in enumerate(scores):
        config = {"variant": "flat", "test_fold": 0, "trial": number, "seed": None}
        trial: Any = SimpleNamespace(trial_id=str(number), config=config)
        asha.on_trial_add(controller, trial)  # type: ignore[arg-type]
        for epoch in range(1, study.reports + 1):
            total += 1
            result = {"epoch": epoch, "macro_f1": float(score)}
            if asha.on_trial_result(controller, trial, result) == TrialScheduler.STOP:  # type: ignore[arg-type]
                break
    return total


def test_trials_are_stopped_as_often_as_asha_stops_them(study: Study) -> None:
    drawn = np.random.default_rng(0)
    totals = [_trained(study, drawn.random(20)) for _ in range(60)]
    mean, deviation = expected.reports(study, "flat", 20)
    assert rungs.judged(study, "flat") == [4, 12]
    assert statistics.fmean(totals) == pytest.approx(mean, rel=0.06)
    assert 0.5 < deviation / statistics.stdev(totals) < 3


def test_without_early_stopping_all_reports_are_made(study: Study) -> None:
    search = study.search.model_copy(update={"scheduler": "none"})
    assert expected.reports(study.model_copy(update={"search": search}), "flat", 20) == (600.0, 0.0)
    assert expected.reports(study, "logistic", 3) == (3.0, 0.0)


def test_trials_that_have_ended_tell_of_those_that_follow(study: Study) -> None:
    record = Record(study, FLAT)
    before = expected.left(record)[0]
    assert before == pytest.approx(expected.reports(study, "flat", 20)[0])
    for _ in range(10):
        trial = record.draw({"loss.gamma": 1.0})
        for epoch in range(1, 5):
            record.report(trial, epoch, 0.5, float(epoch))
        record.end(trial, "stopped")
    assert 10 * 4 < expected.left(record)[0] < before / 2
    record.draw({"loss.gamma": 1.0})
    assert expected.left(record)[0] == pytest.approx(expected.left(Record(study, FLAT))[0])
