"""The spread of a comparison in the finished runs of a study, from which a next study can be planned."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from leukotree import stats
from leukotree.errors import InputError
from leukotree.report import scores
from leukotree.report.summary import Run, StudySummary
from leukotree.stats import power

DRAWS = 400
"""Bootstrap samples of a fold's patients."""


class Pilot(NamedTuple):
    """What a pilot study says about a comparison."""

    challenger: str
    reference: str
    spread: power.Spread
    df: int
    """Degrees of freedom of the spread between folds: those of one repeat."""
    folds: int
    """Folds of all repeats with results of both arms."""
    seeds: int
    patients: float
    """Test patients of a fold. An image without a patient counts as one."""


def measure(summary: StudySummary, pair: tuple[str, str]) -> Pilot:
    """The spread of a pair of arms, or of the first declared comparison where the study has no such arms.

    Raises InputError for fewer than two folds in which both arms have a run of the same seed.
    """
    by_name = {arm.name: arm.runs for arm in summary.arms if arm.runs}
    challenger, reference = next(
        (one for one in (pair, *summary.primary) if set(one) <= by_name.keys()), (None, None)
    )
    if challenger is None or reference is None:
        raise InputError(f"study {summary.name!r}: no declared comparison has finished runs; run it first")
    first, second = (_by_place(by_name[name]) for name in (challenger, reference))
    common = sorted(first.keys() & second.keys())
    folds = sorted({fold for fold, _ in common})
    seeds = [seed for seed in sorted({seed for _, seed in common}) if all((f, seed) in common for f in folds)]
    if len(folds) < 2 or not seeds:
        raise InputError(
            f"study {summary.name!r}: {challenger} and {reference} have {len(folds)} common fold(s) with the "
            "same seeds; a spread needs two"
        )
    differences = np.array(
        [
            [scores.macro_f1([first[fold, seed]]) - scores.macro_f1([second[fold, seed]]) for seed in seeds]
            for fold in folds
        ]
    )
    spreads = [
        _over_patients([[arm[fold, seed] for seed in seeds] for arm in (first, second)]) for fold in folds
    ]
    variance, tested = (float(np.mean(column)) for column in zip(*spreads, strict=True))
    spread = power.measured(differences, float(np.sqrt(variance)), tested)
    # Repeats test the same patients again: they know the spread no better than one repeat does.
    df = max(Counter(first[fold, seeds[0]].repeat for fold in folds).values()) - 1
    return Pilot(challenger, reference, spread, max(df, 1), len(folds), len(seeds), tested)


def _by_place(runs: tuple[Run, ...]) -> dict[tuple[int, int], Run]:
    return {(run.test_fold, run.seed): run for run in runs}


def _over_patients(arms: list[list[Run]]) -> tuple[float, int]:
    """(variance of a fold's difference over other test patients, number of test patients). The runs are those
    of two arms on one fold, one per seed."""
    first, second = (scores.image_clusters(runs) for runs in arms)
    size = np.bincount(first.strata)
    if len(first.names) < 2 or size.min() < 2:
        return 0.0, len(first.names)
    counts = np.stack([first.counts, second.counts])
    samples = stats.bootstrap(counts, first.strata, stats.macro_f1, DRAWS)
    return float((samples[0] - samples[1]).var(ddof=1)), len(first.names)
