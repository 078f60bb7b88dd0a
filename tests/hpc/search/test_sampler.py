"""The draws of a search: the same for all variants of an outer fold, different between folds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hpc.search import sampler
from hpc.search.record import Trial
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
    algorithm=some.sampled_from(["tpe", "random"]),
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
