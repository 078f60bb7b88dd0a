"""The place of a score among controls: its rank, the smallest p value of a rank, and the spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import stats

SCORES = st.lists(st.integers(0, 20).map(lambda score: score / 20), min_size=1, max_size=12)


@given(SCORES, st.integers(0, 20).map(lambda score: score / 20))
def test_rank_and_p_count_the_controls(controls: list[float], score: float) -> None:
    placed = stats.place(score, controls)
    assert placed.rank == 1 + sum(control > score for control in controls)
    assert placed.p == (1 + sum(control >= score for control in controls)) / (1 + len(controls))
    assert placed.smallest_p == 1 / (1 + len(controls)) <= placed.p <= 1


def test_p_of_the_rank_is_the_share_of_all_scores_that_are_at_least_as_good() -> None:
    """Oracle: scipy. If any of the k + 1 scores could be the one, this share is the p value."""
    from scipy.stats import percentileofscore

    rng = np.random.default_rng(0)
    for k in (1, 4, 9, 19):
        score, controls = round(float(rng.normal(1)), 1), rng.normal(size=k).round(1)
        below = percentileofscore([score, *controls], score, kind="strict") / 100
        assert stats.place(score, controls).p == pytest.approx(1 - below)


def test_fewer_than_nineteen_controls_cannot_give_a_rank_below_one_in_twenty() -> None:
    assert next(k for k in range(1, 40) if stats.place(1.0, [0.0] * k).p <= 0.05) == 19


@pytest.mark.parametrize("k", [2, 5, 19])
def test_the_spread_is_the_prediction_interval_of_a_regression_on_a_constant(k: int) -> None:
    import statsmodels.api as sm

    controls = np.random.default_rng(k).normal(0.6, 0.05, k)
    fitted = sm.OLS(controls, np.ones(k)).fit().get_prediction(np.ones((1, 1)))
    expected = fitted.summary_frame(alpha=0.05)[["obs_ci_lower", "obs_ci_upper"]].to_numpy()[0]
    placed = stats.place(0.6, controls)
    np.testing.assert_allclose([placed.low, placed.high], expected)


def test_a_score_that_is_one_of_them_is_rarely_beyond_their_spread() -> None:
    rng = np.random.default_rng(1)
    for k in (2, 5, 9):
        drawn = rng.normal(size=(2000, k + 1))
        above = np.mean([first > stats.place(first, others).high for first, *others in drawn])
        assert 0.012 < above < 0.038  # 2.5 %, four standard errors


def test_without_spread_or_controls_there_is_no_interval() -> None:
    for controls in ([], [0.5], [0.5, 0.5]):
        placed = stats.place(0.7, controls)
        assert (placed.rank, placed.controls) == (1, len(controls))
        assert math.isnan(placed.low)
        assert math.isnan(placed.high)
    assert math.isnan(stats.place(0.7, []).p)


def test_a_score_that_is_no_number_is_refused() -> None:
    for score, controls in ((math.nan, [0.5]), (0.5, [math.nan, 0.5])):
        with pytest.raises(ValueError, match="not a number"):
            stats.place(score, controls)


def test_verdicts_on_differences_are_those_of_a_comparison_of_arms() -> None:
    rng = np.random.default_rng(2)
    reference = rng.uniform(0.4, 0.6, 6)
    arms = {"a": reference + 0.1 + rng.normal(0, 0.01, 6), "b": reference + rng.normal(0, 0.05, 6)}
    clusters = [
        stats.patient_counts([f"p{fold}", f"q{fold}"], np.array([0, 1]), np.array([[0, 1]]), 2)
        for fold in range(6)
    ]
    folds = {
        name: {fold: stats.Fold(float(score), clusters[fold]) for fold, score in enumerate(values)}
        for name, values in {**arms, "reference": reference}.items()
    }
    pairs = [("a", "reference"), ("b", "reference")]
    expected = stats.compare(folds, pairs, 0.25, 0.01, draws=20)
    rows = stats.judged([list(arms[name] - reference) for name, _ in pairs], 0.25, 0.01)
    for row, other in zip(rows, expected, strict=True):
        for key in row._fields:
            assert getattr(row, key) == pytest.approx(getattr(other, key))


def test_one_fold_has_no_verdict() -> None:
    [row, none] = stats.judged([[0.1], []], 0.25, 0.01)
    assert (row.verdict, row.mean, row.interval) == ("not estimable", 0.1, None)
    assert none.verdict == "not estimable"
    assert math.isnan(none.mean)
