"""How many reports the trials of a search make, before they are trained."""

from __future__ import annotations

import math

from hpc.search.record import Record
from hpc.studies.study import Study
from leukotree.spec import PLAIN

PRIOR = 3
"""The rule of the scheduler counts as much as this many trials that have ended."""


def most(study: Study, variant: str) -> int:
    """The reports of a trial that is trained to its end."""
    return 1 if variant in PLAIN and study.search.rungs == "epochs" else study.reports


def rungs(study: Study, variant: str) -> list[int]:
    """The reports after which trials may be stopped."""
    if study.search.scheduler == "none" or variant in PLAIN:
        return []
    found, rung = [], float(study.grace())
    while math.ceil(rung) < study.reports:
        found.append(math.ceil(rung))
        rung *= study.search.reduction_factor
    return found


def reports(study: Study, variant: str, trials: int) -> tuple[float, float]:
    """The reports of the trials of a search together: the expected number, and its standard deviation, if
    no trial were known to be better than another.

    Among k - 1 trials before it, the k-th one passes ASHA's quantile with the probability of `_passes`, so
    that the first trials of a search are stopped less often than the others.
    """
    alive, total, doubt, last = float(trials), 0.0, 0.0, 0
    levels = rungs(study, variant)
    for rung, following in zip(levels, [*levels[1:], most(study, variant)], strict=True):
        total += alive * (rung - last)
        shares = [_passes(study, place) for place in range(1, math.floor(alive) + 1)]
        rest = (alive - len(shares)) * _passes(study, len(shares) + 1)
        doubt += math.sqrt(sum(share * (1 - share) for share in shares)) * (following - rung)
        alive, last = sum(shares) + rest, rung
    return total + alive * (most(study, variant) - last), doubt


def _passes(study: Study, place: int) -> float:
    """The probability that the trial at this place (from 1) in a rung goes on. Ray's ASHA compares it with a
    quantile of those before it; promotion keeps that share of all."""
    kept = 1 / study.search.reduction_factor
    if study.search.scheduler != "asha":
        return kept
    return 1.0 if place == 1 else (place - 1 - (1 - kept) * (place - 2)) / place


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
