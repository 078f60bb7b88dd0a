"""What Ray Tune asks: which values to try next, and which trials to stop. Each search stands by itself.

Neither answer remembers anything: both follow from the records of the searches, so that a sweep that was
killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hpc.search.record import LOSSES, LOSSES_OF_WORKERS, Progress, Record, Trial
from hpc.search.slot import FAILED, KIND, LEFT, search_id_of
from hpc.studies.study import SearchId, Study
from leukotree import seeds, signals
from leukotree.spec import VARIANTS

STATES = {
    None: TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,  # a score after three epochs is not one after all
    "failed": TrialState.FAIL,
}


def propose(study: Study, variant: str, trials: Sequence[Trial]) -> dict[str, Any]:
    """The values of the next trial of a search: a pure function of the search's seed and the trials before
    it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _space(study, variant)
    asked = optuna.create_study(direction="maximize", sampler=_sampler(study, len(trials)))
    asked.add_trials([_frozen(trial, space) for trial in trials])
    return dict(asked.ask(fixed_distributions=space).params)


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial as Optuna's samplers know it."""
    scored = trial.state in ("completed", "stopped") and trial.scores
    return create_trial(
        state=STATES[trial.state],
        params=trial.chosen,
        distributions=dict(space),
        intermediate_values=trial.scores,
        value=trial.scores[trial.last] if scored else None,
    )


def _space(study: Study, variant: str) -> dict[str, BaseDistribution]:
    """Of the next trial: first the keys that all variants know, so that these draw the same values in
    each."""
    axes = study.space(variant)
    space: dict[str, BaseDistribution] = {}
    for key in sorted(axes, key=lambda key: not all(key in study.space(other) for other in VARIANTS)):
        axis = axes[key]
        if axis.choice is not None:
            space[key] = CategoricalDistribution(axis.choice)
        else:
            low, high = axis.bounds
            space[key] = FloatDistribution(low, high, log=axis.loguniform is not None)
    return space


def _sampler(study: Study, number: int) -> BaseSampler:
    """A sampler for one trial, seeded by its number: every search draws the same first trials."""
    search = study.search
    seed = seeds.integer(search.seed, "search", number) % 2**32  # numpy's old generator takes no more
    if search.algorithm == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=search.startup_trials)


class StudySearcher(Searcher):
    """Hands the open trials of a study to Ray, and notes in their records what became of them."""

    def __init__(
        self, progress: Progress, metric: str, devices: float = 1.0, places: Callable[[], int] | None = None
    ) -> None:
        """`devices`: what a trial takes of them, see `Slots.devices`. `places`: where workers come and go,
        how many trials may run at once by now: none is drawn before there is a place for it, so that it knows
        those before it."""
        super().__init__(metric=metric, mode="max")
        self._progress, self._devices, self._places = progress, devices, places
        self._moved: set[str] = set()
        """Ray's ids of trials that left with their worker."""
        self._live: dict[str, tuple[Record, Trial]] = {}  # Ray's id -> the trial

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if not self._progress.open() or self._progress.left:
            return str(Searcher.FINISHED)
        if self._places:
            if signals.requested():
                self._progress.left = "preempted", "asked to stop"
                return str(Searcher.FINISHED)
            if len(self._live) >= self._places():
                return None
        if (found := self._progress.next()) is None:
            return None
        record, trial = found
        trial = trial or record.draw(propose(self._progress.study, record.search_id.variant, record.trials))
        self._progress.started(record, trial)
        self._live[trial_id] = record, trial
        return {
            **record.search_id._asdict(),
            "trial": trial.number,
            "seed": trial.seed,
            "chosen": trial.chosen,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        record, trial = self._live[trial_id]
        if FAILED in result:
            record.end(trial, "failed", result[FAILED], self._spent(result))
        if LEFT in result and self._places and result[KIND] in ("preempted", "timeout"):
            self._moved.add(trial_id)  # its worker leaves: it goes on with another
            self._progress.gone(record, trial, died=False)
        elif LEFT in result:
            self._progress.left = self._progress.left or (
                result[KIND],
                result[LEFT],
            )  # the first reason is that of the others
            self._progress.gone(record, trial, died=False)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ray has done with a trial. `error`: its process is gone, which says nothing of the trial."""
        record, trial = self._live.pop(trial_id)
        if trial_id in self._moved:
            return
        if result and not error:
            self.on_trial_end(record, trial, result)
        most = LOSSES_OF_WORKERS if self._places else LOSSES
        self._progress.gone(record, trial, died=error and self._progress.left is None, most=most)

    def _spent(self, result: dict[str, Any]) -> float:
        """Device-seconds of the process that gave a result."""
        return float(result.get("time_total_s", 0.0)) * self._devices

    def on_trial_end(self, record: Record, trial: Trial, result: dict[str, Any]) -> None:
        """Note how a trial ended whose last result this is."""
        seconds = self._spent(result)
        if FAILED in result:
            record.end(trial, "failed", result[FAILED], seconds)
        elif "epoch" in result:
            record.end(trial, "completed" if result["epoch"] == record.reports else "stopped", None, seconds)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are on the disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the records are on the disk."""


class StudyScheduler(FIFOScheduler):
    """A scheduler for each search: a trial competes with those of its own search only, and with all of them,
    also those that an earlier sweep trained. Re-runs are never stopped."""

    def __init__(self, schedulers: Mapping[SearchId, TrialScheduler]) -> None:
        super().__init__()
        self._schedulers = dict(schedulers)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["seed"] is None:
            self._schedulers[search_id_of(trial)].on_trial_add(
                tune_controller, _numbered(trial.config["trial"])
            )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config["seed"] is not None:
            return str(TrialScheduler.CONTINUE)
        return str(
            self._schedulers[search_id_of(trial)].on_trial_result(
                tune_controller, _numbered(trial.config["trial"]), result
            )
        )


def _numbered(number: int) -> Any:
    """What a scheduler looks at in a trial of Ray. Ray's own ids are others in each sweep."""
    return SimpleNamespace(trial_id=f"{number:05d}")


def scheduler(study: Study, records: Iterable[Record]) -> TrialScheduler:
    """What stops trials that cannot win: ASHA within each search, which knows the scores in its record, or
    nothing.

    A trial that was to be stopped when a kill came is noted as stopped.
    """
    search = study.search
    if search.scheduler != "asha" or study.grace() >= study.reports:
        return FIFOScheduler()
    # No rung at the last report: whoever gets there has nothing left to be stopped from.
    longest = max(study.reports - 1, 1)
    schedulers: dict[SearchId, TrialScheduler] = {}
    for record in records:
        schedulers[record.search_id] = asha = ASHAScheduler(
            time_attr="epoch",
            metric=search.metric,
            mode="max",
            max_t=longest,
            grace_period=min(study.grace(), longest),
            reduction_factor=search.reduction_factor,
            stop_last_trials=False,
        )
        decisions: dict[int, str] = {}
        controller: Any = None  # which ASHA does not look at
        for number, epoch, score in record.reported:
            if number not in decisions:
                asha.on_trial_add(controller, _numbered(number))
            decisions[number] = asha.on_trial_result(
                controller, _numbered(number), {"epoch": epoch, search.metric: score}
            )
        for number, decision in decisions.items():
            if decision == TrialScheduler.STOP:
                record.end(record.trials[number], "stopped")
    return StudyScheduler(schedulers)
