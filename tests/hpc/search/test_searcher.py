"""The trials that are tried next, and those that are stopped: per search, by the records of this sweep and of
earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hpc.launching import caps
from hpc.search import early_stopping, sampler, searcher
from hpc.search.record import Record
from hpc.search.slot_plan import SlotPlan
from hpc.search.trial_queue import TrialQueue
from hpc.search.tune_keys import FAILED, INTERRUPTED, KIND
from hpc.studies.search_settings import Axis
from hpc.studies.study import SearchId, Study

SEARCH_IDS = [SearchId("flat", 0), SearchId("base", 0)]
FLAT = SEARCH_IDS[0]
TRIALS = 6
EPOCHS = 4


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    search = {
        "nested": False,
        "trials": TRIALS,
        "startup_trials": 3,
        "grace": 1,
        "reduction_factor": 2,
        "scheduler": "asha",
        "space": {"loss.gamma": {"uniform": [0, 5]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}},
    }
    return Study.model_validate(
        {"study": "s", "base": {"optim": {"epochs": EPOCHS}}, "variants": ["flat", "base"], "search": search}
    )


def _begun(
    study: Study, search_ids: list[SearchId] = SEARCH_IDS
) -> tuple[TrialQueue, searcher.StudySearcher]:
    """A sweep that starts now, with the records on the disk."""
    queue = TrialQueue(study, [Record(study, search_id) for search_id in search_ids])
    return queue, searcher.StudySearcher(queue, "macro_f1")


def _score(chosen: dict[str, Any]) -> float:
    return 1 / (1 + chosen["loss.gamma"])


def _run(queue: TrialQueue, of: searcher.StudySearcher, ids: list[str]) -> list[dict[str, Any]]:
    """Suggestions. Each trial ends with a score before the next one is suggested."""
    asked = []
    for trial_id in ids:
        one = of.suggest(trial_id)
        assert isinstance(one, dict)
        asked.append(one)
        record = queue.records[SearchId(one["variant"], one["test_fold"])]
        queue.report(record, record.trials[one["trial"]], EPOCHS, _score(one["chosen"]))
        of.on_trial_complete(trial_id, {"epoch": EPOCHS, "macro_f1": _score(one["chosen"])})
    return asked


def _ids(first: int, last: int) -> list[str]:
    return [f"t{number}" for number in range(first, last)]


def test_variants_advance_side_by_side_and_are_independent(study: Study) -> None:
    queue, tune_searcher = _begun(study)
    asked = _run(queue, tune_searcher, _ids(0, 2 * TRIALS))
    assert [(one["variant"], one["trial"]) for one in asked] == [
        (v, n) for n in range(TRIALS) for v in ("flat", "base")
    ]
    # The same scores for the same values: also what the sampler learns from its own variant's trials is the
    # same.
    assert [one["chosen"] for one in asked[::2]] == [one["chosen"] for one in asked[1::2]]
    assert len({one["chosen"]["loss.gamma"] for one in asked}) == TRIALS
    assert tune_searcher.suggest("more") == Searcher.FINISHED


@pytest.mark.parametrize("ended", [1, 4, 8])
def test_a_restarted_sweep_continues_as_if_it_had_not_stopped(
    study: Study, tmp_path: Path, ended: int
) -> None:
    through = _run(*_begun(study), _ids(0, 2 * TRIALS))
    other = study.model_copy(update={"study": "again"})
    first, asked = _begun(other)
    assert _run(first, asked, _ids(0, ended)) == through[:ended]
    left = asked.suggest("left")  # drawn, and killed before it has ended
    assert isinstance(left, dict)
    assert _run(*_begun(other), _ids(ended, 2 * TRIALS)) == through[ended:]
    assert left["chosen"] == through[ended]["chosen"]


def test_a_trial_costs_its_time_times_its_devices(study: Study) -> None:
    queue = TrialQueue(study, [Record(study, FLAT)])
    tune_searcher = searcher.StudySearcher(
        queue, "macro_f1", SlotPlan(cpus=1, gpus=0.25, count=4, ranks=2).devices
    )
    for trial_id in "ab":
        tune_searcher.suggest(trial_id)
    queue.report(queue.records[FLAT], queue.records[FLAT].trials[0], EPOCHS, 0.8)
    tune_searcher.on_trial_complete("a", {"epoch": EPOCHS, "macro_f1": 0.8, "time_total_s": 60.0})
    tune_searcher.on_trial_complete("b", {FAILED: "the loss is nan", "time_total_s": 10.0})
    assert [trial.seconds for trial in Record(study, FLAT).trials] == [30.0, 5.0]
    assert SlotPlan(cpus=4, gpus=0.0, count=1, ranks=2).devices == 2


def test_the_sampler_learns_how_a_trial_ended(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, tune_searcher = _begun(study, [FLAT])
    trials = queue.records[FLAT].trials
    for trial_id in "abcde":
        tune_searcher.suggest(trial_id)
    for number, epoch in ((0, EPOCHS), (1, 1), (1, 2)):
        queue.report(queue.records[FLAT], trials[number], epoch, epoch / 5)
    tune_searcher.on_trial_complete("a", {"epoch": EPOCHS, "macro_f1": 0.8})
    tune_searcher.on_trial_complete("b", {"epoch": 2, "macro_f1": 0.4})
    tune_searcher.on_trial_complete("c", {FAILED: "the loss is nan"})
    tune_searcher.on_trial_result("d", {FAILED: "ValueError: no such model"})
    tune_searcher.on_trial_complete("d", None, error=True)

    frozen: list[Any] = []
    add = optuna.Study.add_trials
    monkeypatch.setattr(
        optuna.Study, "add_trials", lambda self, trials: frozen.extend(trials) or add(self, trials)
    )
    sampler.propose(study, FLAT, Record(study, FLAT).trials)
    assert [trial.state for trial in frozen] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.PRUNED,
        TrialState.PRUNED,
        TrialState.RUNNING,
    ]
    # Those that failed have no report: of stopped trials, TPE ranks these last.
    assert [trial.value for trial in frozen] == [0.8, 0.4, None, None, None]
    assert [trial.intermediate_values for trial in frozen[1:4]] == [{1: 0.2, 2: 0.4}, {}, {}]


def test_a_trial_whose_process_died_is_tried_again_a_few_times(study: Study) -> None:
    tune_searcher = _begun(study, [FLAT])[1]
    first = tune_searcher.suggest("t0")
    for number in range(1, caps.LOST_PROCESSES):
        tune_searcher.on_trial_complete(f"t{number - 1}", None, error=True)
        assert tune_searcher.suggest(f"t{number}") == first
    tune_searcher.on_trial_complete(f"t{caps.LOST_PROCESSES - 1}", None, error=True)
    following = tune_searcher.suggest("t9")
    assert isinstance(following, dict)
    assert following["trial"] == 1
    assert Record(study, FLAT).trials[0].message == f"its process died {caps.LOST_PROCESSES} times"


def test_no_more_trials_are_drawn_than_the_search_has(study: Study) -> None:
    queue, tune_searcher = _begun(study, [FLAT])
    _run(queue, tune_searcher, _ids(0, TRIALS - 1))
    assert isinstance(tune_searcher.suggest("last"), dict)
    assert tune_searcher.suggest("more") is None  # the last one runs: its process may yet die
    tune_searcher.on_trial_result("last", {INTERRUPTED: "asked to stop", KIND: "preempted"})
    assert tune_searcher.suggest("more") == Searcher.FINISHED
    assert queue.open() == 1


def _report(asha: TrialScheduler) -> Callable[..., str]:
    def report(variant: str, number: int, score: float, epoch: int = 1, seed: int | None = None) -> str:
        trial: Any = SimpleNamespace(
            trial_id="Ray's own", config={"variant": variant, "test_fold": 0, "trial": number, "seed": seed}
        )
        controller: Any = None
        asha.on_trial_add(controller, trial)
        return asha.on_trial_result(controller, trial, {"epoch": epoch, "macro_f1": score})

    return report


def test_a_trial_competes_with_those_of_its_own_variant(study: Study) -> None:
    report = _report(early_stopping.scheduler(study, _begun(study)[0].records.values()))
    for number, score in ((0, 0.9), (1, 0.8)):
        report("flat", number, score)
    assert report("flat", 2, 0.1) == TrialScheduler.STOP
    assert report("base", 0, 0.1) == TrialScheduler.CONTINUE
    assert report("base", 1, 0.2) == TrialScheduler.CONTINUE


def test_a_trial_competes_with_those_of_an_earlier_sweep(study: Study) -> None:
    queue, tune_searcher = _begun(study, [FLAT])
    record = queue.records[FLAT]
    for number, score in enumerate((0.8, 0.9, 0.1)):
        tune_searcher.suggest(f"t{number}")
        queue.report(record, record.trials[number], 1, score)
    # Killed now: the third was to be stopped, and nobody has noted it. The others go on, and replay what they
    # did.
    queue, tune_searcher = _begun(study)
    report = _report(early_stopping.scheduler(study, queue.records.values()))
    assert [trial.state for trial in Record(study, FLAT).trials] == [None, None, "stopped"]
    assert [report("flat", number, score) for number, score in ((0, 0.8), (1, 0.9))] == [
        TrialScheduler.CONTINUE
    ] * 2
    assert report("flat", 3, 0.2) == TrialScheduler.STOP
    assert report("flat", 4, 0.95) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("change", [{"scheduler": "none"}, {"grace": 4}])
def test_nothing_is_stopped_without_a_scheduler_or_without_a_later_epoch(
    study: Study, change: dict[str, Any]
) -> None:
    changed = study.model_copy(update={"search": study.search.model_copy(update=change)})
    assert type(early_stopping.scheduler(changed, [])) is FIFOScheduler


def _changed(study: Study, name: str = "s", **search: Any) -> Study:
    return study.model_copy(update={"study": name, "search": study.search.model_copy(update=search)})


def test_nested_searches_are_independent(study: Study) -> None:
    """The searches of one variant on two outer folds draw and stop trials as if they were alone."""
    nested = _changed(study, nested=True)
    search_ids = [SearchId("flat", 0), SearchId("flat", 1)]
    queue, tune_searcher = _begun(nested, search_ids)
    asked = _run(queue, tune_searcher, _ids(0, 2 * TRIALS))
    assert [(one["test_fold"], one["trial"]) for one in asked] == [
        (fold, n) for n in range(TRIALS) for fold in (0, 1)
    ]
    alone = _run(*_begun(_changed(study, "alone", nested=True), search_ids[1:]), _ids(0, TRIALS))
    assert [one["chosen"] for one in alone] == [one["chosen"] for one in asked[1::2]]


def test_variants_draw_the_same_first_values_also_where_one_has_more_keys(study: Study) -> None:
    axis = {"loss.isolation": Axis(choice=["shared", "detached"])}
    for algorithm in ("tpe", "random"):
        wider = _changed(study, space={**axis, **study.search.space}, algorithm=algorithm)
        first, more = (sampler.propose(wider, SearchId(variant, 2), []) for variant in ("flat", "multilabel"))
        assert set(more) - set(first) == {"loss.isolation"}
        assert {key: more[key] for key in first} == first


def test_the_last_trials_of_a_search_hold_up_no_slot(study: Study) -> None:
    """Those of the others, and their re-runs, run beside them."""
    again = _changed(study, rerun_top=1, rerun_seeds=2)
    queue, tune_searcher = _begun(again)
    _run(queue, tune_searcher, _ids(0, 2 * TRIALS - 2))
    last, other = tune_searcher.suggest("last"), tune_searcher.suggest("other")
    assert isinstance(last, dict)
    assert isinstance(other, dict)
    assert [(one["variant"], one["trial"], one["seed"]) for one in (last, other)] == [
        ("flat", 5, None),
        ("base", 5, None),
    ]
    assert tune_searcher.suggest("more") is None
    record = queue.records[FLAT]
    queue.report(record, record.trials[5], EPOCHS, 1.0)
    tune_searcher.on_trial_complete("last", {"epoch": EPOCHS, "macro_f1": 1.0})
    reruns = [tune_searcher.suggest(trial_id) for trial_id in ("a", "b")]
    assert reruns == [{**last, "seed": seed} for seed in again.fresh_seeds(FLAT.test_fold)]
    assert tune_searcher.suggest("c") is None

    queue.report(record, record.reruns[0], EPOCHS, 0.5)
    tune_searcher.on_trial_complete("a", {"epoch": EPOCHS, "macro_f1": 0.5})
    # Killed now: one re-run has ended; the other, and the trial that ran, are asked for again.
    queue, tune_searcher = _begun(again)
    assert [tune_searcher.suggest(trial_id) for trial_id in ("other", "b")] == [other, reruns[1]]
    assert [rerun.score for rerun in queue.records[FLAT].reruns] == [0.5, None]


def test_a_trial_at_its_rung_waits_and_goes_on(study: Study) -> None:
    """Ray ends it there, and gets it again once it is among the best half. Its process time adds up."""
    queue, tune_searcher = _begun(_changed(study, scheduler="halving"), [FLAT])
    record = queue.records[FLAT]
    for trial_id, score in (("a", 0.5), ("b", 0.75)):
        asked = tune_searcher.suggest(trial_id)
        assert isinstance(asked, dict)
        assert asked["until"] == 1
        queue.report(record, record.trials[asked["trial"]], 1, score)
        tune_searcher.on_trial_complete(trial_id, {"epoch": 1, "macro_f1": score, "time_total_s": 8.0})
    assert [trial.paused for trial in record.trials] == [True, True]
    again = tune_searcher.suggest("c")
    assert isinstance(again, dict)
    assert (again["trial"], again["until"]) == (1, 2)
    queue.report(record, record.trials[1], 1, 0.75)  # replayed
    tune_searcher.on_trial_complete("c", {FAILED: "the loss is nan", "time_total_s": 4.0})
    assert [(trial.state, trial.seconds) for trial in Record(queue.study, FLAT).trials] == [
        (None, 8.0),
        ("failed", 12.0),
    ]


def test_reruns_are_never_stopped(study: Study) -> None:
    report = _report(early_stopping.scheduler(study, _begun(study)[0].records.values()))
    for number, score in ((0, 0.9), (1, 0.8)):
        report("flat", number, score)
    assert report("flat", 0, 0.1, epoch=EPOCHS, seed=77) == TrialScheduler.CONTINUE
    assert report("flat", 2, 0.1) == TrialScheduler.STOP


def test_rungs_may_be_inner_folds(study: Study) -> None:
    """With four inner folds, a trial far behind after the first does not train the second."""
    folds = study.model_copy(update={"folds": study.folds.model_copy(update={"inner": 4})})
    folds = _changed(folds, rungs="folds", grace=None)
    report = _report(early_stopping.scheduler(folds, _begun(folds)[0].records.values()))
    assert [report("flat", number, score, epoch=1) for number, score in ((0, 0.8), (1, 0.9))] == [
        TrialScheduler.CONTINUE
    ] * 2
    assert report("flat", 2, 0.2, epoch=1) == TrialScheduler.STOP
    assert report("flat", 0, 0.8, epoch=4) == TrialScheduler.CONTINUE
