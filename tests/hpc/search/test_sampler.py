"""The draws of a search: the same for all variants of an outer fold, different between folds."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hpc.search import sampler
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree.spec import TRAINED

SPACE = {
    "optim.lr": {"loguniform": [1e-6, 1e-3]},
    "loss.isolation": {"choice": ["shared", "detached", "chained"]},
    "optim.batch_size": {"choice": [8, 16, 32, 64]},
    "loss.gamma": {"uniform": [0, 5]},
}
"""`loss.isolation` has an effect in `multilabel` only, and stands between others."""


def study(**search: Any) -> Study:
    return Study.model_validate(
        {"study": "s", "search": {"trials": 12, "startup_trials": 4, "space": SPACE, **search}}
    )


def trials(plan: Study, search_id: SearchId, n: int = 12) -> list[Trial]:
    """The first n trials of a search in which a lower learning rate scores more."""
    done: list[Trial] = []
    for number in range(n):
        chosen = sampler.propose(plan, search_id, done)
        done.append(Trial(number, chosen, scores={40: 1 - chosen["optim.lr"]}, state="completed"))
    return done


@settings(max_examples=25, deadline=None)
@given(
    seed=some.integers(0, 2**31 - 1),
    folds=some.lists(some.integers(0, 40), min_size=2, max_size=2, unique=True),
    algorithm=some.sampled_from(["tpe", "gp", "qmc", "random"]),
)
def test_variants_of_a_fold_draw_the_same_and_folds_do_not(
    seed: int, folds: list[int], algorithm: str
) -> None:
    plan = study(seed=seed, algorithm=algorithm)
    drawn = {
        (variant, fold): [trial.chosen for trial in trials(plan, SearchId(variant, fold), 4)]
        for variant in TRAINED
        for fold in folds
    }
    for fold in folds:
        common = [
            [{key: chosen[key] for key in drawn["flat", fold][0]} for chosen in drawn[variant, fold]]
            for variant in TRAINED
        ]
        assert all(values == common[0] for values in common)
    rates = [chosen["optim.lr"] for fold in folds for chosen in drawn["flat", fold]]
    assert len(set(rates)) == len(rates)


def test_no_fold_draws_the_values_of_another_under_another_number() -> None:
    """Seeds of one stream can meet: place (0, 3) and place (3, 0)."""
    plan = study()
    of_folds = [trials(plan, SearchId("flat", fold), 4) for fold in range(8)]
    drawn = [trial.chosen["loss.gamma"] for of_fold in of_folds for trial in of_fold]
    assert len(set(drawn)) == len(drawn)


def test_each_repeat_draws_its_own_values_and_repeat_0_as_without_repeats() -> None:
    plan = study(seed=3)
    first, again = (
        {variant: trials(plan, SearchId(variant, 1, repeat), 3)[0].chosen["optim.lr"] for variant in TRAINED}
        for repeat in (0, 1)
    )
    assert len(set(first.values())) == len(set(again.values())) == 1
    assert first["flat"] != again["flat"]
    assert first["flat"] == trials(plan, SearchId("flat", 1), 3)[0].chosen["optim.lr"]
    assert plan.fresh_seeds(plan.outer_number(SearchId("flat", 1, 1))) != plan.fresh_seeds(1)


def test_later_draws_learn_from_the_scores_of_their_own_search() -> None:
    plan = study()
    one, again = (trials(plan, SearchId("flat", 3)) for _ in range(2))
    assert [trial.chosen for trial in one] == [trial.chosen for trial in again]
    better = trials(study(trials=40), SearchId("flat", 3), 40)
    first, last = (sum(trial.chosen["optim.lr"] for trial in part) for part in (better[:10], better[-10:]))
    assert last < first


@pytest.mark.parametrize("fold", [0, 3])
def test_a_search_for_all_folds_draws_as_the_fold_that_it_leaves_out(fold: int) -> None:
    plan = study(nested=False).model_copy(
        update={"base": study().base.override({"data.test_fold": fold}), "variants": ("flat",)}
    )
    (search_id,) = plan.search_ids
    assert search_id == SearchId("flat", fold)
    drawn, nested = ([trial.chosen for trial in trials(of, search_id, 4)] for of in (plan, study()))
    assert drawn == nested


def test_another_seed_draws_other_values() -> None:
    drawn = [sampler.propose(study(seed=seed), SearchId("flat", 0), [])["optim.lr"] for seed in range(20)]
    assert all(one != other for one, other in itertools.pairwise(drawn))


FROZEN = {
    "tpe": ([0.00042546429149258, 64, 0.24993268849113], "detached"),
    "random": ([0.00010687069438514, 16, 1.6870693053947], "chained"),
}
"""Trial 5 of fold 2, of a version before there were other samplers."""


@pytest.mark.parametrize("algorithm", FROZEN)
def test_a_study_of_an_earlier_version_goes_on_with_its_own_draws(algorithm: str) -> None:
    drawn = trials(study(algorithm=algorithm), SearchId("multilabel", 2), 6)[-1].chosen
    *numbers, isolation = drawn.values()
    assert (pytest.approx(numbers, rel=1e-9), isolation) == FROZEN[algorithm]
    assert [trial.chosen for trial in trials(study(), SearchId("multilabel", 2), 4)] == [
        trial.chosen for trial in trials(study(algorithm="random"), SearchId("multilabel", 2), 4)
    ]


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "qmc", "random"])
def test_a_proposal_follows_from_the_record_alone(algorithm: str) -> None:
    """As after a kill: with the same trials, some of which still run, were stopped or failed."""
    plan = study(algorithm=algorithm, seed=5)
    done = trials(plan, SearchId("base", 1), 8)
    done[5] = Trial(5, done[5].chosen, scores={1: 0.2}, state="stopped")
    done[6] = Trial(6, done[6].chosen, state="failed")
    done[7] = Trial(7, done[7].chosen)
    one, again = (sampler.propose(plan, SearchId("base", 1), done) for _ in range(2))
    assert one == again
    if algorithm != "gp":  # the same trials have the same most promising point
        assert sampler.propose(plan, SearchId("base", 2), done) != one


def test_the_gaussian_process_finds_what_scores_more() -> None:
    plan = study(algorithm="gp", trials=14, startup_trials=6)
    drawn = [trial.chosen for trial in trials(plan, SearchId("flat", 0), 14)]
    quasi = [trial.chosen for trial in trials(study(algorithm="qmc"), SearchId("flat", 0), 6)]
    assert drawn[:6] == quasi
    assert sum(chosen["optim.lr"] for chosen in drawn[8:]) / 6 < 1e-4


def test_quasi_random_points_cover_each_key_evenly() -> None:
    drawn = [trial.chosen for trial in trials(study(algorithm="qmc"), SearchId("multilabel", 0), 32)]
    in_parts = np.histogram([chosen["loss.gamma"] for chosen in drawn], bins=8, range=(0, 5))[0]
    assert in_parts.min() >= 2
    assert in_parts.max() <= 6
    sizes = [chosen["optim.batch_size"] for chosen in drawn]
    assert {sizes.count(size) for size in (8, 16, 32, 64)} <= {6, 7, 8, 9, 10}


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "qmc", "random"])
def test_the_first_trial_has_the_likely_values_and_the_others_lie_around_them(algorithm: str) -> None:
    space = {
        "optim.lr": {"loguniform": [1e-6, 1e-3], "around": 3e-5},
        "optim.batch_size": {"choice": [8, 16, 32], "around": 16},
        "loss.gamma": {"uniform": [0, 5]},
    }
    plan = study(algorithm=algorithm, space=space, startup_trials=60)
    drawn = [trial.chosen for trial in trials(plan, SearchId("flat", 0), 60)]
    assert (drawn[0]["optim.lr"], drawn[0]["optim.batch_size"]) == (3e-5, 16)
    rates = np.log([chosen["optim.lr"] for chosen in drawn])
    low, high = np.log([1e-6, 1e-3])
    assert low <= rates.min()
    assert rates.max() <= high
    # An even draw has a standard deviation of 0.29 ranges. That of the prior, cut off, is about 0.22.
    assert 0.15 < rates.std() / (high - low) < 0.27
    assert abs(rates.mean() - np.log(3e-5)) < 0.1 * (high - low)
    assert {chosen["optim.batch_size"] for chosen in drawn} == {8, 16, 32}


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "qmc", "random"])
def test_a_step_size_scales_the_learning_rate_with_the_root_of_the_batch(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = study(algorithm=algorithm, step_size=True)  # the batch size of the base is 32
    plain = study(algorithm=algorithm)
    search_id = SearchId("flat", 1)
    record = Record(plan, search_id)
    for _ in range(8):
        trial = record.draw(sampler.propose(plan, search_id, record.trials))
        record.report(trial, record.reports, 1 - trial.chosen["optim.lr"], 1.0)
        record.end(trial, "completed")
    for trial, other in zip(record.trials[:4], trials(plain, search_id, 4), strict=True):
        factor = math.sqrt(trial.chosen["optim.batch_size"] / 32)
        assert trial.chosen["optim.lr"] == pytest.approx(other.chosen["optim.lr"] * factor)
    assert [trial.chosen for trial in Record(plan, search_id).trials] == [
        trial.chosen for trial in record.trials
    ]
