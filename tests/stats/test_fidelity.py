"""Scores at one fidelity: those that were reached, and predictions for trials that were stopped."""

import numpy as np
import pytest

from leukotree.stats.fidelity import FEWEST, final


def curve(end: float, last: int = 10) -> dict[int, float]:
    """A trial whose score rises by 0.01 after each report, to `end` after 10."""
    return {report: end - 0.01 * (10 - report) for report in range(1, last + 1)}


def test_scores_that_were_reached_stay():
    found = final([curve(0.5), curve(0.6), curve(0.7), curve(0.8)], [False] * 4, 10)
    np.testing.assert_allclose(found.scores, [0.5, 0.6, 0.7, 0.8])
    assert found.report == 10
    assert not found.variance.any()


def test_a_stopped_trial_counts_with_the_score_that_its_last_one_predicts():
    full = [curve(end) for end in (0.5, 0.55, 0.6, 0.65, 0.7)]
    found = final([*full, curve(0.4, last=3)], [False] * 6, 10)
    assert found.scores[-1] == pytest.approx(0.4, abs=0.01)
    assert found.variance[-1] < 0.01**2
    noise = np.random.default_rng(0).normal(0, 0.05, 5)
    noisy = [{**one, 10: one[10] + by} for one, by in zip(full, noise, strict=True)]
    uncertain = final([*noisy, curve(0.4, last=3)], [False] * 6, 10)
    assert 0.02**2 < uncertain.variance[-1] < 0.2**2


def test_with_few_complete_trials_an_earlier_report_counts():
    curves = [curve(0.8), curve(0.7), *(curve(0.4 + 0.05 * i, last=4) for i in range(FEWEST))]
    found = final(curves, [False] * len(curves), 10)
    assert found.report == 4
    np.testing.assert_allclose(found.scores, [one[4] for one in curves])


def test_a_failed_trial_has_the_worst_score_and_one_without_a_report_has_none():
    curves = [*(curve(0.5 + 0.1 * i) for i in range(FEWEST)), curve(0.9, last=2), {}, {}]
    found = final(curves, [False] * 4 + [True, True, False], 10)
    assert found.scores[4:6].tolist() == [0.5, 0.5]
    assert np.isnan(found.scores[6])
    assert np.isnan(final([{}, {}], [True, False], 10).scores).all()
