"""The posterior of a search's record: the choice by it, and when further trials are not worth their cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc.search import choice, enough, posterior
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study

SPACE = {
    "loss.gamma": {"uniform": [0, 5]},
    "optim.lr": {"loguniform": [1e-5, 1e-1]},
    "loss.kind": {"choice": ["focal", "conditional"]},
}
FLAT, MULTILABEL = SearchId("flat", 0), SearchId("multilabel", 0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def study(**search: Any) -> Study:
    settings = {"trials": 20, "startup_trials": 10, "space": SPACE, "choice": "posterior", **search}
    base = {"optim": {"epochs": 2}, "loss": {"kind": "focal"}}
    return Study.model_validate({"study": "s", "base": base, "search": settings})


def truth(rate: float) -> float:
    return 0.7 - 0.02 * (np.log10(rate) + 3) ** 2


def searched(plan: Study, search_id: SearchId = FLAT, trials: int = 20, noise: float = 0.03) -> Record:
    """A search whose score depends on the learning rate. The luckiest trial has a bad one."""
    record, rng = Record(plan, search_id), np.random.default_rng(0)
    for number in range(trials):
        rate = 3e-5 if number == 5 else float(10 ** rng.uniform(-5, -1))
        kind = "focal" if number % 3 else "conditional"
        trial = record.draw({"loss.gamma": float(rng.uniform(0, 5)), "optim.lr": rate, "loss.kind": kind})
        score = 0.74 if number == 5 else truth(rate) + noise * rng.normal()
        for epoch in (1, 2):
            record.report(trial, epoch, float(score) - 0.1 * (epoch == 1), 1.0)
        record.end(trial, "completed")
    return record


def test_the_highest_posterior_mean_is_chosen_not_the_luckiest_score() -> None:
    record = searched(study())
    assert record.ranked()[0].number == 5
    trial, value = choice.current(record) or pytest.fail("nothing was chosen")
    assert trial.number != 5
    assert 1e-4 < trial.chosen["optim.lr"] < 1e-2
    assert value == pytest.approx(truth(trial.chosen["optim.lr"]), abs=0.02)
    choice.write_choices([record])
    best = choice.read_choice(record.study, FLAT)
    assert (best["choice"], best["trial"], best["value"]) == ("posterior", trial.number, value)
    assert choice.current(Record(record.study, FLAT)) == (trial, value)


def test_reruns_inform_the_choice() -> None:
    record = searched(study(rerun_share=0.25, rerun_seeds=1))
    assert [rerun.number for rerun in record.reruns] == [one.number for one in record.ranked()[:5]]
    assert choice.current(record) == (record.trials[5], 0.74)  # until they have ended
    before = posterior.means(record)
    for rerun in record.reruns:
        record.report(rerun, 2, float(truth(rerun.chosen["optim.lr"])), 9.0)
        record.end(rerun, "completed")
    after = posterior.means(record)
    assert after[5] < before[5] - 0.01
    trial, value = choice.current(record) or pytest.fail("nothing was chosen")
    assert trial.number != 5
    assert value == after[trial.number] == max(after.values())


def test_a_trial_whose_rerun_failed_is_not_chosen() -> None:
    record = searched(study(rerun_top=1, rerun_seeds=1))
    record.end(record.reruns[0], "failed", "diverged")
    assert 5 not in posterior.means(record)


def test_values_without_effect_and_trials_without_a_score_are_no_error() -> None:
    record = Record(study(), FLAT)
    for number in range(20):
        chosen = {"loss.gamma": 1.0, "optim.lr": 1e-3, "loss.kind": "conditional"}
        trial = record.draw(chosen)
        if number % 4:
            record.report(trial, 1, 0.5, 1.0)
        if number == 1:
            record.report(trial, 2, 0.6, 1.0)
        record.end(trial, ("failed", "completed", "stopped", "stopped")[number % 4 if number < 4 else 2])
    assert list(posterior.means(record)) == [1]


def test_a_search_is_enough_once_the_gain_is_below_the_noise() -> None:
    plan = study(until="enough")
    few = [searched(plan, FLAT, 9), searched(plan, MULTILABEL, 9)]
    assert enough.enough(few) is None  # below the floor


@pytest.mark.parametrize(("noise", "is_enough"), [(0.08, True), (0.0005, False)])
def test_the_noise_decides_when_it_is_enough(noise: float, is_enough: bool) -> None:
    record = Record(study(until="enough"), FLAT)
    rng = np.random.default_rng(0)
    for number in range(20):
        rate = float(10 ** rng.uniform(-5, -1))
        trial = record.draw({"loss.gamma": 1.0, "optim.lr": rate, "loss.kind": "focal"})
        for epoch in (1, 2):
            record.report(trial, epoch, float(truth(rate) + noise * rng.normal()), 1.0)
        record.end(trial, "completed")
        if number == 9:
            assert enough.enough([record]) is None or is_enough
    gain, spread = posterior.optimum(record).gain(), posterior.optimum(record).surrogate.noise
    assert (gain < spread) == is_enough
    assert (enough.enough([record]) is not None) == is_enough
    other = searched(study(until="enough"), MULTILABEL, 9)
    assert enough.enough([record, other]) is None  # all variants of a fold stop together
