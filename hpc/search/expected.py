"""How many reports the trials of a search make, before they are trained."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import statistics

from hpc.search.record import Record
from hpc.search.rungs import judged, most
from hpc.studies.study import Study
from leukotree import seeds

SIMULATED = 100
"""Simulated searches."""
PRIOR = 3
"""The rule of the scheduler counts as much as this many trials that have ended."""


def reports(study: Study, variant: str, trials: int) -> tuple[float, float]:
    """The reports of the trials of a search together, if their ranks at one rung are those at the next: the
    mean and the standard deviation over simulated searches."""
    levels, end = judged(study, variant), most(study, variant)
    if not levels or not trials:
        return float(trials * end), 0.0
    if study.search.scheduler == "asha":
        return _asha(tuple(levels), end, trials, study.search.reduction_factor)
    alive, total = float(trials), 0.0
    for begin, rung in itertools.pairwise([0, *levels, end]):
        total += alive * (rung - begin)
        alive /= study.search.reduction_factor
    return total, 0.0


@functools.lru_cache(maxsize=64)
def _asha(levels: tuple[int, ...], end: int, trials: int, factor: float) -> tuple[float, float]:
    """As `reports`, by Ray's ASHA on trials one after another: at each rung a trial goes on if it is not
    below a quantile of those before it, interpolated as by numpy."""
    drawn, totals = seeds.generator(0, "expected"), []
    for _ in range(SIMULATED):
        seen: list[list[float]] = [[] for _ in levels]
        total = 0
        for score in drawn.random(trials).tolist():
            last = end
            for level, before in zip(levels, seen, strict=True):
                stopped = bool(before) and score < _quantile(before, 1 - 1 / factor)
                bisect.insort(before, score)
                if stopped:
                    last = level
                    break
            total += last
        totals.append(float(total))
    return statistics.fmean(totals), statistics.stdev(totals)


def _quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def left(record: Record) -> tuple[float, float]:
    """The reports that the trials of a search still make, as `reports`: by the rule of the scheduler, and by
    the trials that have ended."""
    study, variant = record.study, record.search_id.variant
    rule, doubt = reports(study, variant, record.most)
    ended = [len(trial.scores) for trial in record.trials if trial.state is not None]
    each = (PRIOR * rule / max(1, record.most) + sum(ended)) / (PRIOR + len(ended))
    begun = [trial.last for trial in record.trials if trial.state is None]
    todo = record.open_trials() - len(begun)
    # A trial that goes on after its first reports makes at least one more.
    expected = todo * each + sum(max(1.0, each - one) for one in begun)
    return expected, doubt * math.sqrt(record.open_trials() / max(1, record.most))
