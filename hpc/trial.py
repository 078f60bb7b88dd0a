"""What Ray Tune runs and keeps: the function of one trial, the searcher, and the record of every epoch."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from tqdm import tqdm

from hpc import history
from hpc.study import Study
from leukotree.files import append_lines
from leukotree.train import Runtime


def train_trial(config: dict[str, Any], study: Study, variant: str, folder: str, runtime: Runtime) -> None:
    """One trial: its inner folds in lockstep, their mean reported after each epoch.

    `folder` is the (absolute) current folder of the sweep: shards and run folders are named relative to it. A trial that
    is started again finds its run folders, replays what they hold and continues.
    """
    from leukotree import train

    os.chdir(folder)
    specs = study.trial_specs(variant, config["chosen"])
    # Where the scheduler stops the trial, Ray ends this thread inside report(); closing lets the runs note it at once.
    # A folder for each trial: two that draw the same values would otherwise share, and lock, their runs.
    runs = study.search_folder(variant) / "runs" / f"{config['trial']:05d}"
    with contextlib.closing(train.lockstep(specs, runs, runtime)) as epochs:
        for row in epochs:
            tune.report({"epoch": row["epoch"], "macro_f1": row["macro_f1"]})


def folder_name(trial: Any) -> str:
    """Name of a trial's folder in Ray's experiment; Ray's own has every value in it, and grows too long for a path."""
    return f"{trial.config['trial']:05d}"


class Searcher(OptunaSearch):
    """Ray's OptunaSearch with two differences: a trial knows its number, and one that the scheduler stopped is "pruned"
    for the sampler. (Ray calls it complete, so that its score after three epochs would count as one after all.)"""

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
        stopped = result is not None and result.get("epoch", 0) < self._epochs
        super().on_trial_complete(trial_id, None if stopped else result, error)


def searcher(study: Study) -> Searcher:
    """The searcher of a study, seeded: every variant draws the same first trials."""
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = study.search
    space: dict[str, BaseDistribution] = {}
    for key, axis in search.space.items():
        if axis.choice is not None:
            space[key] = CategoricalDistribution(axis.choice)
        else:
            low, high = axis.bounds
            space[key] = FloatDistribution(low, high, log=axis.loguniform is not None)
    sampler = (
        RandomSampler(seed=search.seed)
        if search.algorithm == "random"
        else TPESampler(seed=search.seed, n_startup_trials=search.startup_trials)
    )
    return Searcher(space, sampler, search.metric, study.base.optim.epochs)


class Record(tune.Callback):
    """Appends every reported epoch to history.csv as it comes, and shows a bar of finished trials."""

    def __init__(self, path: Path, trials: int, title: str, quiet: bool) -> None:
        self.path, self.trials, self.title, self.quiet = path, trials, title, quiet
        self._bar: tqdm[Any] | None = None
        self._began = 0.0
        self._seen: set[tuple[int, int]] = set()

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """At the start of a sweep, or of its continuation: the clock goes on where it stopped."""
        rows = history.read(self.path)
        self._seen = {(row["trial"], row["epoch"]) for row in rows}
        self._began = time.time() - max((row["seconds"] for row in rows), default=0.0)
        self._bar = tqdm(total=self.trials, desc=self.title, unit="trial", disable=True if self.quiet else None)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        key = (trial.config["trial"], result["epoch"])
        if key in self._seen:  # replayed by a trial that was started again
            return
        self._seen.add(key)
        row = [*key, result["macro_f1"], round(time.time() - self._began, 3)]
        head = [] if self.path.exists() else [",".join(history.COLUMNS)]
        append_lines(self.path, [*head, ",".join(map(str, row))])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._advance(trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._advance(trials)

    def _advance(self, trials: list[Any]) -> None:
        if self._bar is not None:
            scores = [trial.last_result["macro_f1"] for trial in trials if "macro_f1" in (trial.last_result or {})]
            self._bar.set_postfix_str(f"best {max(scores):.4f}" if scores else "")
            self._bar.update(sum(trial.is_finished() for trial in trials) - self._bar.n)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
