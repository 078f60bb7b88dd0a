"""Successive halving that pauses and resumes: which trials go on, and that none is left waiting."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from hpc.search import choice, halving, rungs, sampler
from hpc.search.record import Record, Trial
from hpc.search.trial_queue import TrialQueue
from hpc.studies.study import SearchId, Study
from tests.helpers import searches

FLAT = SearchId("flat", 0)
VALUES = {"loss.gamma": 1.0}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power fails in these tests


def study(epochs: int = 9, name: str = "s", **search: Any) -> Study:
    given = {
        "nested": False,
        "trials": 9,
        "grace": 1,
        "scheduler": "halving",
        "algorithm": "random",
        **search,
    }
    base = {"optim": {"epochs": epochs}}
    space = {"loss.gamma": {"uniform": [0, 5]}}
    return Study.model_validate(
        {"study": name, "base": base, "variants": ["flat"], "search": {"space": space, **given}}
    )


def _at_rung(queue: TrialQueue, score: float) -> Trial:
    """A new trial that has reached its rung and left its slot."""
    record = queue.records[FLAT]
    trial = record.draw(VALUES)
    queue.started(record, trial)
    _reach(queue, trial, score)
    return trial


def _reach(queue: TrialQueue, trial: Trial, score: float) -> None:
    record = queue.records[FLAT]
    for report in range(trial.last + 1, (trial.until or record.reports) + 1):
        queue.report(record, trial, report, score)
    queue.leave(record, trial, seconds=2.0)


def test_rungs_are_grace_times_powers_of_the_reduction_factor() -> None:
    assert rungs.levels(study(40, grace=8), "flat") == [8, 24]
    assert rungs.levels(study(9), "flat") == [1, 3]  # the last report is the end, and no rung
    assert rungs.levels(study(9, reduction_factor=1.5), "flat") == [1, 2, 3, 4, 6, 8]
    assert rungs.levels(study(9, grace=9), "flat") == []
    assert rungs.levels(study(9, scheduler="asha"), "flat") == []
    assert rungs.levels(study(9), "logistic") == []  # it has one report
    assert rungs.levels(study(rungs="folds", grace=None), "flat") == [1]


def test_brackets_are_those_of_hyperband() -> None:
    """With three rungs: 9 trials from the first, 5 from the second, 3 to their end; and again."""
    plan = study(9, scheduler="hyperband", trials=30)
    found = [(one.numbers.start, len(one.numbers), one.levels) for one in rungs.brackets(plan, "flat", 30)]
    assert found == [(0, 9, [1, 3]), (9, 5, [3]), (14, 3, []), (17, 9, [1, 3]), (26, 4, [3])]
    assert [rungs.first(plan, "flat", number) for number in (0, 8, 9, 13, 14, 16, 17)] == [
        1,
        1,
        3,
        3,
        None,
        None,
        1,
    ]


def test_a_trial_goes_on_once_it_is_among_the_best_third_of_its_rung() -> None:
    plan = study()
    queue = TrialQueue(plan, [Record(plan, FLAT)])
    record = queue.records[FLAT]
    assert queue.next() == (record, None)
    first, second = _at_rung(queue, 0.5), _at_rung(queue, 0.7)
    assert (first.paused, first.last, queue.verdict(record, first)) == (True, 1, "pause")
    assert queue.next() == (record, None)  # two are too few for a best third
    _at_rung(queue, 0.1)
    assert queue.next() == (record, second)
    assert (second.until, second.active) == (3, True)
    queue.started(record, second)
    assert queue.next() == (record, None)
    again = Record(plan, FLAT).trials  # killed now: it goes on, and is not replaced by another
    assert [(trial.until, trial.paused) for trial in again] == [(1, True), (3, False), (1, True)]
    assert again[1].seconds == 2.0


def test_a_trial_without_hope_is_stopped_at_once() -> None:
    """Of nine trials three can go on: who has three better ones at its rung is out. Its checkpoints go."""
    plan = study()
    queue = TrialQueue(plan, [Record(plan, FLAT)])
    worst = _at_rung(queue, 0.1)
    checkpoints = plan.search_folder(FLAT) / "runs" / "00000" / "flat-0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for score in (0.2, 0.3):
        _at_rung(queue, score)
    assert worst.state is None
    assert checkpoints.exists()
    _at_rung(queue, 0.4)
    assert (worst.state, worst.seconds) == ("stopped", 2.0)
    assert not checkpoints.exists()


def test_a_bracket_waits_until_its_rung_is_full() -> None:
    plan = study(scheduler="hyperband")
    queue = TrialQueue(plan, [Record(plan, FLAT)])
    record = queue.records[FLAT]
    for number in range(8):
        _at_rung(queue, number / 10)
        assert queue.next() == (record, None)
    last = record.draw(VALUES)
    queue.started(record, last)
    assert queue.next() is None
    _reach(queue, last, 0.05)
    promoted = [queue.next()]
    queue.started(*promoted[0])  # type: ignore[misc, arg-type]
    promoted.append(queue.next())
    assert [one and one[1] and one[1].number for one in promoted] == [7, 6]


@pytest.mark.parametrize("trials", [1, 2, 5])
def test_a_search_of_few_trials_trains_one_to_its_end(trials: int) -> None:
    plan = study(trials=trials)
    queue = searches.begun(plan)
    searches.play(queue)
    states = [trial.state for trial in queue.records[FLAT].trials]
    assert sorted(set(states), key=str) == ["completed", "stopped"][: min(trials, 2)]
    assert states.count("completed") == 1


def test_if_the_best_fails_the_next_one_goes_on() -> None:
    plan = study(trials=5)

    def score(search_id: SearchId, trial: Trial, report: int) -> float:
        if trial.number == 1 and report > 1:
            raise searches.Failed("the loss is nan")
        return [0.5, 0.9, 0.7, 0.1, 0.2][trial.number]

    queue = searches.begun(plan)
    searches.play(queue, score)
    record = queue.records[FLAT]
    assert [trial.state for trial in record.trials] == [
        "stopped",
        "failed",
        "completed",
        "stopped",
        "stopped",
    ]
    assert [(trial.state, trial.last) for trial in Record(plan, FLAT).trials] == [
        (trial.state, trial.last) for trial in record.trials
    ]


def test_the_next_inner_fold_is_for_those_still_in_the_race() -> None:
    plan = study(rungs="folds", grace=None)
    queue = searches.begun(plan)
    played = searches.play(queue)
    assert sorted(trial.last for trial in queue.records[FLAT].trials) == [1] * 6 + [3] * 3
    assert played.reports == 9 + 3 * 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scheduler=some.sampled_from(["halving", "hyperband"]),
    trials=some.integers(1, 14),
    slots=some.integers(1, 9),
    epochs=some.integers(1, 14),
    grace=some.integers(1, 4),
    eta=some.sampled_from([1.5, 2.0, 3.0, 4.0]),
    luck=some.randoms(use_true_random=False),
)
def test_every_search_ends_and_no_trial_is_left_waiting(
    scheduler: str,
    trials: int,
    slots: int,
    epochs: int,
    grace: int,
    eta: float,
    luck: Any,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the trials score, how long they take, and which of them fail. Each trial trains at most once,
    at least one in eta of a rung goes on, and only if all fail is there no choice."""
    monkeypatch.chdir(tmp_path_factory.mktemp("search"))
    monkeypatch.setattr(sampler, "propose", lambda *given: VALUES)
    plan = study(epochs, scheduler=scheduler, trials=trials, grace=grace, reduction_factor=eta)
    fails = {number for number in range(trials) if luck.random() < 0.15}
    levels = [luck.random() for _ in range(trials)]

    def score(search_id: SearchId, trial: Trial, report: int) -> float:
        if trial.number in fails and report >= 2:
            raise searches.Failed("the loss is nan")
        return levels[trial.number] + 0.1 * luck.random()

    queue = searches.begun(plan)
    played = searches.play(queue, score, slots, lambda trial: luck.uniform(0.5, 2.0))
    record = queue.records[FLAT]
    assert (queue.open(), len(record.trials)) == (0, trials)
    assert played.reports <= trials * epochs
    assert halving.promotion(record) is None
    completed = [trial for trial in record.trials if trial.state == "completed"]
    assert completed or len(fails) == trials
    assert bool(choice.current(record)) == bool(completed)
    stored = Record(plan, FLAT)
    assert [(one.state, one.scores, one.until) for one in stored.trials] == [
        (one.state, one.scores, one.until) for one in record.trials
    ]
