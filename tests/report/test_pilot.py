"""The spread of a pilot study, from its stored predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leukotree.errors import InputError
from leukotree.evaluation import metrics
from leukotree.report import pilot
from leukotree.report.collect import collect
from leukotree.report.summary import StudySummary
from tests.helpers import study_results

PAIR = ("multilabel", "flat")


@pytest.fixture(scope="module")
def summary(whole: Path) -> StudySummary:
    return collect(whole, study_results.STUDY, study_results.expected_runs())


def test_the_parts_add_up_to_the_spread_of_the_folds(summary: StudySummary) -> None:
    found = pilot.measure(summary, PAIR)
    assert (found.challenger, found.reference, found.folds, found.seeds, found.df) == (*PAIR, 3, 2, 2)
    assert found.patients == 12
    scores = {
        (run.arm, run.test_fold, run.seed): metrics.macro_f1(
            run.true, run.predicted, len(run.taxonomy.leaves)
        )
        for run in summary.runs
    }
    differences = np.array(
        [[scores[PAIR[0], f, s] - scores[PAIR[1], f, s] for s in (0, 1)] for f in range(3)]
    )
    training = differences.var(axis=1, ddof=1).mean()
    assert found.spread.training == pytest.approx(np.sqrt(training))
    of_patients = found.spread.patients**2 / found.patients
    total = differences.mean(axis=1).var(ddof=1)
    assert found.spread.method**2 == pytest.approx(max(0.0, total - training / 2 - of_patients))
    assert 0.02 < np.sqrt(of_patients) < 0.2


def test_another_pair_stands_in_for_arms_that_the_pilot_lacks(summary: StudySummary) -> None:
    assert pilot.measure(summary, ("other", "flat")).challenger == summary.primary[0][0]


def test_too_few_folds_are_refused(summary: StudySummary) -> None:
    arms = tuple(
        replace(arm, runs=tuple(run for run in arm.runs if run.test_fold == 0)) for arm in summary.arms
    )
    with pytest.raises(InputError, match=r"have 1 common fold\(s\) with the same seeds; a spread needs two"):
        pilot.measure(replace(summary, arms=arms), PAIR)
    with pytest.raises(InputError, match="no declared comparison has finished runs"):
        pilot.measure(replace(summary, arms=()), PAIR)
