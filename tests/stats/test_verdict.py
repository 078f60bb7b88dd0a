"""The declared rule: an example of each verdict, and its error rates where the truth is known."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from leukotree import stats
from leukotree.evaluation import metrics
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
        between = stats.detectable_range(differences, RATIO, rope=0.02, family=2)
        assert row.detectable_range == pytest.approx(between)
        assert between[0] < row.detectable < between[1]
        assert (row.clusters, row.alone) == (18, 0)
        assert row.bootstrap[0] < row.bootstrap[1]


def test_only_common_folds_count_and_a_missing_arm_is_not_estimable():
    results = arms(new=[0.9, 0.8, 0.7], flat=[0.5, 0.5, 0.1])
    del results["flat"][2], results["new"][0]
    row, absent = stats.compare(results, [("new", "flat"), ("base", "flat")], RATIO, draws=50)
    assert (row.folds, row.mean, row.clusters) == (1, pytest.approx(0.3), 6)
    assert (row.detectable_range, absent.detectable_range) == (None, None)
    assert math.isnan(absent.pooled)
    assert (absent.folds, absent.verdict, absent.clusters, absent.bootstrap) == (0, "not estimable", 0, None)
    assert math.isnan(absent.mean)


def folds_of(answers_of: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[int, Fold]:
    """Fold -> its result, from its patients, true leaves and predictions."""
    leaves = 1 + max(int(true.max()) for _, true, _ in answers_of.values())
    return {
        fold: Fold(
            metrics.macro_f1(true, predicted, leaves),
            stats.patient_counts([f"{fold}-{one}" for one in patient], true, predicted, leaves),
        )
        for fold, (patient, true, predicted) in answers_of.items()
    }


def ragged(gain: float, loss: int) -> dict[str, dict[int, Fold]]:
    """One fold of 60 patients and four folds of 10 patients, 10 images each, of three leaves. In the large
    fold the new arm gains images; in each small fold it loses `loss` of the few images of the third leaf."""
    rng, old, new = np.random.default_rng(0), {}, {}
    for fold, patients in enumerate([60, 10, 10, 10, 10]):
        patient = np.repeat(np.arange(patients), 10)
        true = np.repeat(np.arange(patients) % 2, 10)
        true[np.isin(patient, [0, 1, 2, 3])] = 2
        right = rng.random(len(true)) < 0.8
        better = right | (rng.random(len(true)) < gain) if fold == 0 else right.copy()
        if fold:
            better[np.flatnonzero(right & (true == 2))[:loss]] = False
        old[fold], new[fold] = (
            (patient, true, np.where(kept, true, (true + 1) % 3)) for kept in (right, better)
        )
    return {"new": folds_of(new), "old": folds_of(old)}


def test_each_interval_holds_its_own_estimate_where_the_two_differ_widely():
    """Folds of different sizes: the mean over folds is below 0, the pooled difference above it. Each lies in
    its own interval, and the pooled one would stand outside of the other's."""
    (row,) = stats.compare(ragged(gain=0.5, loss=4), [("new", "old")], RATIO)
    print(f"mean {row.mean:+.3f} in {row.interval}, pooled {row.pooled:+.3f} in {row.bootstrap}")
    assert row.mean < 0 < 0.03 < row.pooled
    assert row.interval[0] < row.mean < row.interval[1]
    assert row.bootstrap[0] < row.pooled < row.bootstrap[1]
    assert not row.bootstrap[0] < row.mean < row.bootstrap[1]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 5))
def test_the_pooled_difference_is_the_centre_of_its_bootstrap(seed, n_folds, leaves):
    """It is the macro F1 of all images together (scikit-learn's) of one arm minus that of the other, and the
    mean of the resampled differences is near it, measured by their spread."""
    rng = np.random.default_rng(seed)
    arms: dict[str, dict[int, tuple[np.ndarray, ...]]] = {"new": {}, "old": {}}
    for fold in range(n_folds):
        patient = np.repeat(np.arange(12), rng.integers(1, 8, 12))
        true = rng.integers(0, leaves, 12)[patient]
        true[:leaves] = np.arange(leaves)
        for skill, arm in zip((0.7, 0.5), arms.values(), strict=True):
            guess = rng.integers(0, leaves, len(true))
            arm[fold] = (patient, true, np.where(rng.random(len(true)) < skill, true, guess))
    results = {name: folds_of(arm) for name, arm in arms.items()}
    (row,) = stats.compare(results, [("new", "old")], RATIO, draws=400)
    scores = [
        f1_score(
            np.concatenate([fold[1] for fold in arm.values()]),
            np.concatenate([fold[2] for fold in arm.values()]),
            labels=range(leaves),
            average="macro",
            zero_division=0,
        )
        for arm in arms.values()
    ]
    assert row.pooled == pytest.approx(scores[0] - scores[1])
    pooled = [stats.pool([fold.clusters for fold in arm.values()]) for arm in results.values()]
    samples = stats.bootstrap(np.stack([arm.counts for arm in pooled]), pooled[0].strata, stats.macro_f1, 400)
    differences = samples[0] - samples[1]
    assert abs(differences.mean() - row.pooled) < differences.std()
    assert differences.min() < row.pooled < differences.max()


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
