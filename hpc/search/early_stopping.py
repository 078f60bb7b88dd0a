"""Which trials are stopped early: ASHA within each search, by the scores in the search's record.

A trial competes with all trials of its own search, also with those that an earlier sweep trained. It competes
with no trial of another search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from hpc.search.record import Record
from hpc.search.tune_keys import search_id_of
from hpc.studies.study import SearchId, Study
from leukotree.spec import PLAIN


class StudyScheduler(FIFOScheduler):
    """One scheduler per search. Re-runs are never stopped."""

    def __init__(self, schedulers: Mapping[SearchId, TrialScheduler]) -> None:
        super().__init__()
        self._schedulers = dict(schedulers)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["seed"] is None:
            scheduler = self._schedulers[search_id_of(trial)]
            scheduler.on_trial_add(tune_controller, _numbered(trial.config["trial"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config["seed"] is not None:
            return str(TrialScheduler.CONTINUE)
        scheduler, number = self._schedulers[search_id_of(trial)], trial.config["trial"]
        return str(scheduler.on_trial_result(tune_controller, _numbered(number), result))


def scheduler(study: Study, records: Iterable[Record]) -> TrialScheduler:
    """The scheduler of a sweep. It knows the scores in the records. A trial that an earlier sweep did not
    stop before it was killed is noted as stopped."""
    if study.search.scheduler != "asha" or study.grace() >= study.reports:
        return FIFOScheduler()
    return StudyScheduler({record.search_id: _of_search(study, record) for record in records})


def _of_search(study: Study, record: Record) -> TrialScheduler:
    """ASHA. A trial of a variant of PLAIN has one report, which is its last."""
    return FIFOScheduler() if record.search_id.variant in PLAIN else _asha(study, record)


def _asha(study: Study, record: Record) -> TrialScheduler:
    """ASHA of one search, after all scores in its record."""
    search = study.search
    # No rung at the last report: a trial that gets there has ended.
    longest = max(study.reports - 1, 1)
    asha = ASHAScheduler(
        time_attr="epoch",
        metric=search.metric,
        mode="max",
        max_t=longest,
        grace_period=min(study.grace(), longest),
        reduction_factor=search.reduction_factor,
        stop_last_trials=False,
    )
    decisions: dict[int, str] = {}
    controller: Any = None  # ASHA does not use it
    for number, epoch, score in record.reported:
        if number not in decisions:
            asha.on_trial_add(controller, _numbered(number))
        decisions[number] = asha.on_trial_result(
            controller, _numbered(number), {"epoch": epoch, search.metric: score}
        )
    for number, decision in decisions.items():
        if decision == TrialScheduler.STOP:
            record.end(record.trials[number], "stopped")
    return asha


def _numbered(number: int) -> Any:
    """A trial with the one field that ASHA reads. Ray's own ids differ between sweeps."""
    return SimpleNamespace(trial_id=f"{number:05d}")
