"""Tests over folds against baycomp, scipy and hand computations."""

import math

import baycomp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, nct
from scipy.stats import t as student_t

from leukotree import stats

score = st.floats(0, 1).map(lambda value: round(value, 3))
pairs = st.lists(st.tuples(score, score), min_size=2, max_size=10).filter(
    lambda rows: len({round(a - b, 3) for a, b in rows}) > 1
)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


class TestNadeauBengio:
    def test_by_hand(self):
        test = stats.nadeau_bengio([0.1, 0.2, 0.3], 0.5)
        half = 4.302652729911275 * 0.1 * math.sqrt(1 / 3 + 0.5)
        assert test is not None
        assert (test.mean, test.se, test.df) == pytest.approx((0.2, 0.1 * math.sqrt(1 / 3 + 0.5), 2))
        assert (test.low, test.high) == pytest.approx((0.2 - half, 0.2 + half))

    @given(pairs)
    def test_one_sided_p_values_are_those_of_baycomp(self, rows):
        """baycomp takes n_test / n_train = 1 / (K - 1) for K folds, and gives (P(x better), P(y better)) for
        rope 0."""
        x, y = np.array(rows).T
        test = stats.nadeau_bengio(y - x, 1 / (len(rows) - 1))
        assert test is not None
        assert (test.p_greater, test.p_less) == pytest.approx(baycomp.two_on_single(x, y), abs=1e-12)
        assert test.p == pytest.approx(2 * min(test.p_greater, test.p_less))

    @given(pairs, st.floats(0.05, 0.5))
    def test_the_interval_leaves_out_zero_where_p_is_below_five_per_cent(self, rows, ratio):
        test = stats.nadeau_bengio([a - b for a, b in rows], ratio)
        assert test is not None
        assert (test.low > 0 or test.high < 0) == (test.p < 0.05)

    @pytest.mark.parametrize("values", [[], [0.3], [0, 0], [0.25, 0.25], [0.1 + 0.2, 0.3, 0.3]])
    def test_without_spread_there_is_none(self, values):
        assert stats.nadeau_bengio(values, 0.25) is None
        assert stats.correlated_t(values, 0.25, 0.01) is None
        assert stats.smallest_detectable(values, 0.25) is None
        assert stats.detectable_range(values, 0.25) is None


class TestCorrelatedT:
    @given(pairs, st.sampled_from([0.001, 0.01, 0.1]))
    def test_equals_baycomp(self, rows, rope):
        x, y = np.array(rows).T
        probabilities = stats.correlated_t(y - x, 1 / (len(rows) - 1), rope)
        assert probabilities == pytest.approx(baycomp.two_on_single(x, y, rope=rope), abs=1e-12)
        assert sum(probabilities) == pytest.approx(1)

    @pytest.mark.parametrize("runs", [2, 5])
    def test_equals_baycomp_with_repeated_runs(self, runs):
        x, y = np.random.default_rng(runs).random((2, 5 * runs))
        expected = baycomp.two_on_single(x, y, rope=0.02, runs=runs)
        assert stats.correlated_t(y - x, 1 / 4, 0.02) == pytest.approx(expected)

    def test_without_a_region_nothing_is_the_same(self):
        probabilities = stats.correlated_t([0.1, 0.3, -0.1], 0.5, 0.0)
        assert probabilities is not None
        assert probabilities.same == pytest.approx(0, abs=1e-15)


class TestHolm:
    def test_by_hand(self):
        """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, never below the one before."""
        assert stats.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])

    def test_is_at_most_one(self):
        assert stats.holm([0.9, 0.8]).tolist() == [1, 1]

    def test_a_comparison_that_could_not_be_made_counts_in_the_family(self):
        adjusted = stats.holm([math.nan, 0.02, 0.04])
        assert adjusted[1:] == pytest.approx([0.06, 0.08])
        assert math.isnan(adjusted[0])

    @given(p_values)
    def test_keeps_the_order_never_lowers_and_never_exceeds_bonferroni(self, values):
        adjusted = stats.holm(values)
        order = np.argsort(values, kind="stable")
        assert (np.diff(adjusted[order]) >= 0).all()
        assert (adjusted >= np.array(values)).all()
        assert (adjusted <= np.minimum(1, len(values) * np.array(values)) + 1e-12).all()
        assert adjusted.min() == pytest.approx(min(1, len(values) * min(values)))


class TestSmallestDetectable:
    DIFFERENCES = (0.01, 0.03, -0.02, 0.02, 0.05)

    @pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
    def test_is_the_noncentral_t_power_of_the_test(self, power):
        difference, test = (
            stats.smallest_detectable(self.DIFFERENCES, 0.25, power),
            stats.nadeau_bengio(self.DIFFERENCES, 0.25),
        )
        assert nct.sf(student_t.ppf(0.975, 4), 4, difference / test.se) == pytest.approx(power, abs=2e-3)

    def test_a_region_and_a_family_need_a_larger_difference(self):
        one = stats.smallest_detectable(self.DIFFERENCES, 0.25)
        assert stats.smallest_detectable(self.DIFFERENCES, 0.25, family=3) > one
        assert stats.smallest_detectable(self.DIFFERENCES, 0.25, rope=0.1) > one + 0.05

    def test_a_study_with_that_effect_detects_it_at_that_rate(self):
        """Independent folds (ratio 0), effect as computed from their true spread of 1."""
        rng, folds, rope = np.random.default_rng(0), 5, 0.5
        unit = np.array([-1, -1, 0, 1, 1])  # its standard deviation is 1
        effect = stats.smallest_detectable(unit, 0.0, rope=rope, family=2)
        draws = rng.normal(effect, 1, (4000, folds))
        se = draws.std(axis=1, ddof=1) / math.sqrt(folds)
        tested = draws.mean(axis=1) / se > student_t.ppf(1 - 0.025 / 2, folds - 1)
        sure = (draws.mean(axis=1) - rope) / se > student_t.ppf(0.95, folds - 1)
        assert (tested & sure).mean() == pytest.approx(0.8, abs=0.02)


class TestDetectableRange:
    DIFFERENCES = TestSmallestDetectable.DIFFERENCES

    def test_five_folds_know_it_within_a_factor_of_0_6_to_2_9(self):
        """Without a region it is proportional to the spread. By hand: sqrt(4 / 11.143) and sqrt(4 /
        0.48442)."""
        assert stats.spread_factors(4) == pytest.approx((0.5991, 2.8735), abs=1e-4)
        one = stats.smallest_detectable(self.DIFFERENCES, 0.25)
        between = stats.detectable_range(self.DIFFERENCES, 0.25)
        assert between == pytest.approx((0.5991 * one, 2.8735 * one), rel=1e-3)

    def test_repeats_of_the_same_patients_know_the_spread_as_one_repeat_does(self):
        twice = self.DIFFERENCES * 2
        one = stats.smallest_detectable(twice, 0.25)
        assert stats.detectable_range(twice, 0.25, of_spread=4) == pytest.approx(
            (0.5991 * one, 2.8735 * one), rel=1e-3
        )

    @given(pairs, st.floats(0, 0.1), st.integers(1, 4))
    def test_it_holds_the_estimate(self, rows, rope, family):
        values = [a - b for a, b in rows]
        low, high = stats.detectable_range(values, 0.25, rope=rope, family=family)
        assert low < stats.smallest_detectable(values, 0.25, rope=rope, family=family) < high

    @pytest.mark.slow("simulates")
    @pytest.mark.parametrize("folds", [3, 5, 10])
    def test_it_covers_the_true_value_at_its_nominal_rate(self, folds):
        """Normal differences that are equally correlated (1/5). The true value is that of the true spread
        between folds, which a study only estimates."""
        rng, studies, correlation = np.random.default_rng(folds), 2000, 0.2
        shared, own = rng.normal(size=(studies, 1)), rng.normal(size=(studies, folds))
        draws = 0.02 * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
        unit = np.array([-1.0, 1.0] + [0.0] * (folds - 2))
        unit *= 0.02 * math.sqrt(1 - correlation) / unit.std(ddof=1)  # folds with just the true spread
        truth = stats.smallest_detectable(unit, 0.25, rope=0.01, family=2)
        between = [stats.detectable_range(values, 0.25, rope=0.01, family=2) for values in draws[:400]]
        covered = np.mean([low <= truth <= high for low, high in between])
        print(f"{folds} folds: {100 * covered:.1f} % of 400 ranges hold the true value")
        assert covered == pytest.approx(0.95, abs=0.035)
        low, high = np.transpose([stats.spread_factors(folds - 1)] * studies) * draws.std(axis=1, ddof=1)
        inside = (low <= unit.std(ddof=1)) & (unit.std(ddof=1) <= high)
        assert inside.mean() == pytest.approx(0.95, abs=0.015)


class TestMcNemar:
    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
    def test_is_the_binomial_test_of_the_patients_that_differ(self, rows):
        first, second = np.array(rows).T
        test = stats.mcnemar(first, second)
        one, other = rows.count((True, False)), rows.count((False, True))
        assert test[:2] == (one, other)
        assert test.p == pytest.approx(binomtest(one, one + other).pvalue if one + other else 1)
