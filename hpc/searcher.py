"""What Ray Tune asks: which values to try next, and which trials to stop. Each variant is searched by itself."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from hpc.study import Study
from hpc.trial import FAILED


class VariantSearcher(OptunaSearch):
    """Ray's OptunaSearch with two differences: a trial knows its number, and one that the scheduler stopped is "pruned"
    for the sampler, one that diverged "failed". (Ray calls both complete, so that a score after three epochs would count as
    one after all.)"""

    def __init__(self, space: dict[str, Any], sampler: BaseSampler, metric: str, epochs: int) -> None:
        super().__init__(space=space, sampler=sampler, metric=metric, mode="max")
        self._epochs = epochs

    def suggest(self, trial_id: str) -> dict[str, Any]:
        chosen = super().suggest(trial_id)
        return {"trial": self._ot_trials[trial_id].number, "chosen": chosen}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with warnings.catch_warnings():  # a trial that was started again replays epochs that the sampler knows
            warnings.filterwarnings("ignore", "The reported value is ignored", UserWarning)
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        failed = error or (result is not None and FAILED in result)
        stopped = result is not None and result.get("epoch", 0) < self._epochs
        super().on_trial_complete(trial_id, None if failed or stopped else result, failed)


class StudySearcher(Searcher):
    """All trials of the first variant, then all of the next: one experiment, so that they follow each other in the same
    processes; and a searcher for each variant, so that none knows of another."""

    def __init__(self, searchers: Mapping[str, VariantSearcher], trials: int, metric: str) -> None:
        """`searchers`: variant -> its searcher; `trials`: of each variant."""
        super().__init__(metric=metric, mode="max")
        self._searchers, self._trials = dict(searchers), trials
        self._variants: dict[str, str] = {}  # trial id -> variant

    def suggest(self, trial_id: str) -> dict[str, Any]:
        variant = list(self._searchers)[len(self._variants) // self._trials]
        self._variants[trial_id] = variant
        return {"variant": variant, **self._searchers[variant].suggest(trial_id)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._searchers[self._variants[trial_id]].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._searchers[self._variants[trial_id]].on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps((self._searchers, self._variants)))

    def restore(self, checkpoint_path: str) -> None:
        self._searchers, self._variants = pickle.loads(Path(checkpoint_path).read_bytes())  # noqa: S301 - we wrote it


class StudyScheduler(FIFOScheduler):
    """A scheduler for each variant: a trial competes with those of its own variant only."""

    def __init__(self, make: Callable[[], TrialScheduler]) -> None:
        super().__init__()
        self._make = make
        self._schedulers: dict[str, TrialScheduler] = {}
        self._properties: tuple[str | None, str | None] = (None, None)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        self._properties = metric, mode
        return bool(super().set_search_properties(metric, mode, **spec))

    def _of(self, trial: Any) -> TrialScheduler:
        variant = trial.config["variant"]
        if variant not in self._schedulers:
            self._schedulers[variant] = self._make()
            self._schedulers[variant].set_search_properties(*self._properties)
        return self._schedulers[variant]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)


def searcher(study: Study, variants: Sequence[str]) -> StudySearcher:
    """The searcher of a study, seeded: every variant draws the same first trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search, epochs = study.search, study.base.optim.epochs
    searchers = {variant: VariantSearcher(_space(study), _sampler(study), search.metric, epochs) for variant in variants}
    return StudySearcher(searchers, search.trials, search.metric)


def _space(study: Study) -> dict[str, Any]:
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {}
    for key, axis in study.search.space.items():
        if axis.choice is not None:
            space[key] = CategoricalDistribution(axis.choice)
        else:
            low, high = axis.bounds
            space[key] = FloatDistribution(low, high, log=axis.loguniform is not None)
    return space


def _sampler(study: Study) -> BaseSampler:
    search = study.search
    if search.algorithm == "random":
        return RandomSampler(seed=search.seed)
    return TPESampler(seed=search.seed, n_startup_trials=search.startup_trials)


def scheduler(study: Study) -> TrialScheduler:
    """What stops trials that cannot win: ASHA within each variant, or nothing."""
    search, epochs = study.search, study.base.optim.epochs
    if search.scheduler != "asha" or study.grace() >= epochs:
        return FIFOScheduler()

    def asha() -> TrialScheduler:
        # No rung at the last epoch: whoever gets there has nothing left to be stopped from.
        return ASHAScheduler(
            time_attr="epoch", max_t=max(epochs - 1, 1), grace_period=min(study.grace(), max(epochs - 1, 1)),
            reduction_factor=search.reduction_factor, stop_last_trials=False,
        )  # fmt: skip

    return StudyScheduler(asha)
