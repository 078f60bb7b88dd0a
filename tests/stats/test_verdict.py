"""The declared rule: an example of each verdict, and its error rates where the truth is known."""

import math

import numpy as np
import pytest

from leukotree import stats
from leukotree.stats import Fold, Probabilities

RATIO = 0.25


def answers(fold: int, wrong: int, known: bool = True) -> stats.Clusters:
    """Six patients of a fold with 4 images each, half of each leaf; the first image of the first `wrong`
    patients is missed, and with over six of them all images of the others."""
    true = np.repeat([0, 1, 0, 1, 0, 1], 4)
    missed = np.zeros((6, 4), dtype=bool)
    missed[:wrong, 0], missed[: max(wrong - 6, 0)] = True, True
    names = np.repeat([f"{fold}-{p}" for p in range(6)], 4) if known else [""] * 24
    return stats.patient_counts(names, true, np.where(missed.ravel(), 1 - true, true), 2)


def arms(**scores: list[float]) -> dict[str, dict[int, Fold]]:
    return {
        name: {fold: Fold(value, answers(fold, wrong=2 + place)) for fold, value in enumerate(values)}
        for place, (name, values) in enumerate(scores.items())
    }


@pytest.mark.parametrize(
    ("values", "verdict", "reason"),
    [
        ([0.10, 0.12, 0.11, 0.13], "better", "P(better) 0.999, Holm-adjusted p 0.00"),
        ([-0.10, -0.12, -0.11, -0.13], "worse", "P(worse) 0.999, Holm-adjusted p 0.00"),
        ([0.001, -0.001, 0.002, 0.0], "equivalent", "P(same) 0.99"),
        ([0.1, -0.1, 0.2, 0.0], "inconclusive", "none reaches 0.95"),
        ([0.02, 0.03, 0.06, 0.06], "inconclusive", "none reaches 0.95"),
        ([0.2], "not estimable", "1 common fold; a spread needs two"),
        ([], "not estimable", "0 common folds; a spread needs two"),
        ([0.25, 0.25], "not estimable", "the same difference in all 2 folds"),
        ([0.0, 0.0, 0.0], "inconclusive", "equal scores in all 3 folds"),
    ],
)
def test_each_verdict_and_its_reason(values, verdict, reason):
    (row,) = stats.compare(arms(new=values, flat=[0.0] * len(values)), [("new", "flat")], RATIO, draws=50)
    assert row.verdict == verdict
    assert reason in row.reason
    assert "\n" not in row.reason
    assert row.folds == len(values)


def test_a_certain_difference_needs_a_small_p_too():
    assert stats.judge([0.1, 0.2], Probabilities(0, 0.04, 0.96), 0.06)[0] == "inconclusive"
    assert stats.judge([0.1, 0.2], Probabilities(0, 0.04, 0.96), 0.04)[0] == "better"
    assert stats.judge([0.1, 0.2], Probabilities(0.96, 0.04, 0), 0.04)[0] == "worse"
    assert (
        "Holm-adjusted p 0.060 is not below 0.05"
        in stats.judge([0.1, 0.2], Probabilities(0, 0.04, 0.96), 0.06)[1]
    )


def test_a_small_but_certain_difference_is_equivalent():
    """Significantly above 0, and within the region with certainty: no practical difference."""
    (row,) = stats.compare(
        arms(new=[0.001, 0.0012, 0.0011], flat=[0, 0, 0]), [("new", "flat")], RATIO, draws=50
    )
    assert row.p < 0.05
    assert row.verdict == "equivalent"


def test_rows_hold_the_numbers_of_the_tests():
    scores = {"new": [0.6, 0.7, 0.65], "old": [0.5, 0.68, 0.6], "flat": [0.55, 0.6, 0.58]}
    rows = stats.compare(arms(**scores), [("new", "flat"), ("old", "flat")], RATIO, rope=0.02, draws=100)
    assert [(row.challenger, row.reference) for row in rows] == [("new", "flat"), ("old", "flat")]
    tests = [stats.nadeau_bengio(np.subtract(scores[name], scores["flat"]), RATIO) for name in ("new", "old")]
    assert [row.p_holm for row in rows] == pytest.approx(stats.holm([test.p for test in tests]))
    for row, test, name in zip(rows, tests, ("new", "old"), strict=True):
        differences = np.subtract(scores[name], scores["flat"])
        assert (row.mean, *row.interval, row.p) == pytest.approx((test.mean, test.low, test.high, test.p))
        assert row.probabilities == pytest.approx(stats.correlated_t(differences, RATIO, 0.02))
        assert row.detectable == pytest.approx(
            stats.smallest_detectable(differences, RATIO, rope=0.02, family=2)
        )
        assert (row.clusters, row.alone) == (18, 0)
        assert row.bootstrap[0] < row.bootstrap[1]


def test_only_common_folds_count_and_a_missing_arm_is_not_estimable():
    results = arms(new=[0.9, 0.8, 0.7], flat=[0.5, 0.5, 0.1])
    del results["flat"][2], results["new"][0]
    row, absent = stats.compare(results, [("new", "flat"), ("base", "flat")], RATIO, draws=50)
    assert (row.folds, row.mean, row.clusters) == (1, pytest.approx(0.3), 6)
    assert (absent.folds, absent.verdict, absent.clusters, absent.bootstrap) == (0, "not estimable", 0, None)
    assert math.isnan(absent.mean)


def test_mcnemar_is_on_patients_and_only_where_they_are_known():
    def folds(wrong, known=True):
        return {fold: Fold(0.5, answers(fold, wrong, known)) for fold in range(2)}

    pair = [("new", "flat")]
    (row,) = stats.compare({"new": folds(2), "flat": folds(10)}, pair, RATIO, draws=50)
    assert row.mcnemar == (8, 0, pytest.approx(2 / 2**8))
    (row,) = stats.compare(
        {"new": folds(2, known=False), "flat": folds(10, known=False)}, pair, RATIO, draws=50
    )
    assert row.mcnemar is None
    assert (row.clusters, row.alone) == (48, 48)


def simulated(rng, truth: float, sd: float, correlation: float, folds: int) -> np.ndarray:
    """(folds,) differences with mean `truth` that share `correlation` of their variance, as folds share
    training images."""
    shared, own = rng.normal(), rng.normal(size=folds)
    return truth + sd * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)


@pytest.mark.parametrize("sd", [0.005, 0.03])
@pytest.mark.parametrize("family", [1, 3])
def test_errors_are_rare_where_the_truth_is_known(sd, family):
    """Five folds that are as correlated as Nadeau and Bengio take them to be, 1/5. Any false `better` or
    `worse` in a family of comparisons without a difference, and `equivalent` or `better` for one that is just
    the region's edge."""
    rng, draws, rope = np.random.default_rng(family), 600, 0.01
    false, edge = 0, {"equivalent": 0, "better": 0}
    for _ in range(draws):
        none = [simulated(rng, 0.0, sd, 0.2, 5) for _ in range(family)]
        adjusted = stats.holm([stats.nadeau_bengio(values, RATIO).p for values in none])
        verdicts = [
            stats.judge(values, stats.correlated_t(values, RATIO, rope), p)[0]
            for values, p in zip(none, adjusted, strict=True)
        ]
        false += any(verdict in ("better", "worse") for verdict in verdicts)
        values = simulated(rng, rope, sd, 0.2, 5)
        verdict, _ = stats.judge(
            values, stats.correlated_t(values, RATIO, rope), stats.nadeau_bengio(values, RATIO).p
        )
        edge = {name: times + (verdict == name) for name, times in edge.items()}
    rates = {"false better or worse": false / draws} | {
        f"{name} at the edge": times / draws for name, times in edge.items()
    }
    print(
        f"sd {sd}, {family} comparisons:",
        ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in rates.items()),
    )
    assert all(rate < 0.08 for rate in rates.values())
