"""What is tried next, and what is stopped: each variant by itself, in one experiment."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from hpc import searcher
from hpc.study import Study
from hpc.trial import FAILED

VARIANTS = ["flat", "base"]
TRIALS = 6


@pytest.fixture
def study() -> Study:
    search = {
        "trials": TRIALS,
        "startup_trials": 3,
        "grace": 1,
        "reduction_factor": 2,
        "scheduler": "asha",
        "space": {"loss.gamma": {"uniform": [0, 5]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}},
    }
    return Study.model_validate({"study": "s", "base": {"optim": {"epochs": 4}}, "search": search})


def _end(of: searcher.StudySearcher, trial_id: str, **result: Any) -> None:
    of.on_trial_complete(trial_id, {"epoch": 4, **result})


def _search(of: searcher.StudySearcher, ids: list[str]) -> list[dict[str, Any]]:
    """Suggestions, each trial ended with a score before the next one is asked for."""
    asked = []
    for trial_id in ids:
        asked.append(of.suggest(trial_id))
        _end(of, trial_id, macro_f1=1 / (1 + asked[-1]["chosen"]["loss.gamma"]))
    return asked


def test_variants_follow_each_other_and_none_knows_of_another(study: Study) -> None:
    ids = [f"t{number}" for number in range(2 * TRIALS)]
    asked = _search(searcher.searcher(study, VARIANTS), ids)
    assert [(one["variant"], one["trial"]) for one in asked] == [(v, n) for v in VARIANTS for n in range(TRIALS)]
    # The same scores for the same values: also what the sampler learns from its own variant's trials is the same.
    assert [one["chosen"] for one in asked[:TRIALS]] == [one["chosen"] for one in asked[TRIALS:]]


def test_a_saved_searcher_goes_on_as_if_it_had_not_stopped(study: Study, tmp_path: Path) -> None:
    ids = [f"t{number}" for number in range(2 * TRIALS)]
    through = _search(searcher.searcher(study, VARIANTS), ids)
    first, second = searcher.searcher(study, VARIANTS), searcher.searcher(study, VARIANTS)
    begun = _search(first, ids[:8])
    first.save(str(tmp_path / "state"))
    second.restore(str(tmp_path / "state"))
    assert begun + _search(second, ids[8:]) == through


def test_the_sampler_learns_how_a_trial_ended(study: Study) -> None:
    found = searcher.searcher(study, ["flat"])
    for trial_id in "abcd":
        found.suggest(trial_id)
    _end(found, "a", macro_f1=0.5)
    found.on_trial_complete("b", {"epoch": 2, "macro_f1": 0.4})
    found.on_trial_complete("c", {FAILED: "the loss is nan"})
    found.on_trial_complete("d", None, error=True)
    sampled = found._searchers["flat"]._ot_study.trials
    assert [trial.state for trial in sampled] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]


def test_a_trial_competes_with_those_of_its_own_variant(study: Study) -> None:
    asha = searcher.scheduler(study)
    asha.set_search_properties("macro_f1", "max")

    def report(variant: str, name: str, score: float) -> str:
        trial: Any = SimpleNamespace(trial_id=f"{variant}-{name}", config={"variant": variant})
        controller: Any = None
        asha.on_trial_add(controller, trial)
        return asha.on_trial_result(controller, trial, {"epoch": 1, "macro_f1": score})

    for name, score in (("a", 0.9), ("b", 0.8)):
        report("flat", name, score)
    assert report("flat", "c", 0.1) == TrialScheduler.STOP
    assert report("base", "a", 0.1) == TrialScheduler.CONTINUE
    assert report("base", "b", 0.2) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("change", [{"scheduler": "none"}, {"grace": 4}])
def test_nothing_is_stopped_where_it_was_not_asked_for_or_no_epoch_is_left(study: Study, change: dict[str, Any]) -> None:
    changed = study.model_copy(update={"search": study.search.model_copy(update=change)})
    assert type(searcher.scheduler(changed)) is FIFOScheduler
