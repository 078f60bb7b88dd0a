"""What the trials and re-runs of a search say of its best values: the posterior of `leukotree.stats.optimum`
on a search's record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpc.search.record import Record, Trial
from leukotree.stats import fidelity
from leukotree.stats.axes import Cube
from leukotree.stats.optimum import Optimum
from leukotree.stats.surrogate import Observations


class Means(NamedTuple):
    """Posterior means of the trials of a search."""

    scores: dict[int, float]
    """Trial that completed, and has no re-run that failed -> its posterior mean."""
    noise: float
    """The standard deviation of a score when the trial is trained again."""


def means(record: Record) -> Means | None:
    """The posterior means of the completed trials, from all trials and re-runs. None if no trial completed,
    or no re-run of one."""
    failed = {rerun.number for rerun in record.reruns if rerun.state == "failed"}
    candidates = [trial for trial in record.ranked() if trial.number not in failed]
    if not candidates or not cube(record).keys:
        return None
    posterior = optimum(record)
    found = posterior.surrogate.mean(cube(record).encoded(_units(record, candidates)))
    scores = {trial.number: float(mean) for trial, mean in zip(candidates, found, strict=True)}
    return Means(scores, posterior.surrogate.noise)


def cube(record: Record) -> Cube:
    """The space of a search."""
    axes = record.study.space(record.search_id.variant)
    forms = ("uniform", "loguniform", "choice")
    return Cube(
        {
            key: {form: getattr(axis, form) for form in forms if getattr(axis, form) is not None}
            for key, axis in axes.items()
        }
    )


def optimum(record: Record) -> Optimum:
    """The posterior of the best values of a search, from its trials with a score and its re-runs."""
    seen = [one for one in (*record.trials, *record.reruns) if one.state == "failed" or one.scores]
    final = fidelity.final(
        [one.scores for one in seen], [one.state == "failed" for one in seen], record.reports
    )
    known = ~np.isnan(final.scores)
    x = cube(record).encoded(_units(record, seen))[known]
    group = np.zeros(len(x), dtype=np.int64)
    return Optimum(cube(record), Observations(x, final.scores[known], group, final.variance[known]))


def _units(record: Record, trials: Sequence[Trial]) -> np.ndarray:
    """(N, K) units of trials. A value that has no effect beside the others of its trial is NaN."""
    study, variant = record.study, record.search_id.variant
    values = [study.with_effect(variant, trial.chosen) for trial in trials]
    space = cube(record)
    return space.units({key: [one.get(key, math.nan) for one in values] for key in space.keys})
