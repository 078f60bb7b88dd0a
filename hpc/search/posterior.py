"""What the trials and re-runs of a search say of its best values: the posterior of `leukotree.stats.optimum`
on a search's record."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hpc.search.record import Record, Trial
from leukotree import seeds
from leukotree.stats import fidelity
from leukotree.stats.axes import Cube
from leukotree.stats.optimum import Optimum
from leukotree.stats.surrogate import Observations, Surrogate


def means(record: Record) -> dict[int, float]:
    """Trial -> its posterior mean, from all trials and re-runs. Of the completed trials, without those of
    which a re-run failed. Empty for a search without keys."""
    failed = {rerun.number for rerun in record.reruns if rerun.state == "failed"}
    candidates = [trial for trial in record.ranked() if trial.number not in failed]
    if not candidates or not cube(record).keys:
        return {}
    space = cube(record)
    surrogate = Surrogate(_seen(record, space), space.owner, seeds.generator(0, "choice"))
    found = surrogate.mean(space.encoded(_units(record, space, candidates)))
    return {trial.number: float(mean) for trial, mean in zip(candidates, found, strict=True)}


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
    """The posterior of the best values of a search."""
    space = cube(record)
    return Optimum(space, _seen(record, space))


def _seen(record: Record, space: Cube) -> Observations:
    """The trials with a score, and the re-runs, at one fidelity."""
    seen = [one for one in (*record.trials, *record.reruns) if one.state == "failed" or one.scores]
    final = fidelity.final(
        [one.scores for one in seen], [one.state == "failed" for one in seen], record.reports
    )
    known = ~np.isnan(final.scores)
    x = space.encoded(_units(record, space, seen))[known]
    return Observations(x, final.scores[known], np.zeros(len(x), dtype=np.int64), final.variance[known])


def _units(record: Record, space: Cube, trials: Sequence[Trial]) -> np.ndarray:
    """(N, K) units of trials. A value that has no effect beside the others of its trial is NaN."""
    study, variant = record.study, record.search_id.variant
    values = [study.with_effect(variant, trial.chosen) for trial in trials]
    return space.units({key: [one.get(key, math.nan) for one in values] for key in space.keys})
