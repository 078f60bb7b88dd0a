"""Clinical scores against scikit-learn and statsmodels, and against cases that a person can compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.evaluation import clinical, decide, metrics
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import cases, drawn
from tests.helpers.trees import trees

PAPER = Taxonomy.paper()
SEEDS = st.integers(0, 10_000)


def confusion(seed: int, n_leaves: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True leaves, predicted ones that are right half of the time, and their confusion matrix."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, n_leaves, n)
    predicted = np.where(rng.random(n) < 0.5, true, rng.integers(0, n_leaves, n))
    return true, predicted, metrics.confusion(true, predicted, n_leaves)


class TestTargets:
    def test_the_paper_has_its_leaves_and_leukemia(self) -> None:
        found = {target.name: target.leaves.tolist() for target in clinical.targets(PAPER)}
        assert list(found) == [*PAPER.leaves, "leukemia"]
        assert found["leukemia"] == [False, False, True, True, True, True, True]

    def test_an_only_child_below_the_root_is_no_target(self) -> None:
        tree = Taxonomy.from_nested({"root": {"blood": {"a": None, "b": {"c": {"d": None, "e": None}}}}})
        assert [target.name for target in clinical.targets(tree)] == ["a", "d", "e", "b"]

    @given(trees())
    def test_each_has_leaves_inside_and_outside(self, tree: Taxonomy) -> None:
        for target in clinical.targets(tree):
            assert 0 < target.leaves.sum() < len(tree.leaves)


class TestCounts:
    @pytest.mark.slow("compares many samples")
    @settings(max_examples=30)
    @given(trees(edges=12), SEEDS)
    def test_rates_are_those_of_scikit_learn(self, tree: Taxonomy, seed: int) -> None:
        from sklearn.metrics import precision_score, recall_score

        true, predicted, table = confusion(seed, len(tree.leaves))
        for target in clinical.targets(tree):
            is_true, is_predicted = target.leaves[true], target.leaves[predicted]
            expected = [
                recall_score(is_true, is_predicted, zero_division=np.nan),
                recall_score(~is_true, ~is_predicted, zero_division=np.nan),
                precision_score(is_true, is_predicted, zero_division=np.nan),
                precision_score(~is_true, ~is_predicted, zero_division=np.nan),
            ]
            np.testing.assert_allclose(clinical.rates(clinical.counts(table, target)), expected)

    @settings(max_examples=30)
    @given(st.integers(2, 6), SEEDS)
    def test_mcc_and_kappa_are_those_of_scikit_learn(self, n_leaves: int, seed: int) -> None:
        from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

        true, predicted, table = confusion(seed, n_leaves)
        assert clinical.mcc(table) == pytest.approx(matthews_corrcoef(true, predicted))
        distance = np.abs(np.subtract.outer(np.arange(n_leaves), np.arange(n_leaves)))
        weights = {None: 1 - np.eye(n_leaves), "linear": distance, "quadratic": distance**2}
        for name, weight in weights.items():
            expected = cohen_kappa_score(true, predicted, labels=np.arange(n_leaves), weights=name)
            assert clinical.weighted_kappa(table, weight) == pytest.approx(expected)

    @settings(max_examples=30)
    @given(trees(edges=12), SEEDS)
    def test_kappa_by_lca_height_is_that_of_statsmodels(self, tree: Taxonomy, seed: int) -> None:
        from statsmodels.stats.inter_rater import cohens_kappa

        table = confusion(seed, len(tree.leaves))[2]
        expected = cohens_kappa(table, weights=tree.lca_heights, return_results=False)
        assert clinical.weighted_kappa(table, tree.lca_heights) == pytest.approx(expected)

    def test_one_answer_for_all_has_mcc_0_and_undefined_rates_are_nan(self) -> None:
        table = metrics.confusion(np.array([0, 1, 1]), np.array([1, 1, 1]), 3)
        assert clinical.mcc(table) == 0
        empty = clinical.Target("c", np.array([False, False, True]))
        rates = clinical.rates(clinical.counts(table, empty))
        assert np.isnan(rates.sensitivity)
        assert np.isnan(rates.ppv)
        assert rates.specificity == rates.npv == 1
        assert np.isnan(clinical.weighted_kappa(np.diag([4, 0, 0]), 1 - np.eye(3)))

    def test_sums_may_have_leading_axes(self) -> None:
        tables = np.stack([[confusion(seed, 7)[2] for seed in (0, 1)] for _ in range(3)])
        target = clinical.targets(PAPER)[-1]
        assert clinical.counts(tables, target).shape == (3, 2, 4)
        np.testing.assert_allclose(clinical.mcc(tables)[1, 1], clinical.mcc(tables[1, 1]))
        kappa = clinical.weighted_kappa(tables, PAPER.lca_heights)
        np.testing.assert_allclose(kappa[2, 0], clinical.weighted_kappa(tables[2, 0], PAPER.lca_heights))

    def test_the_mean_cost_of_heights_is_the_lca_height(self) -> None:
        from leukotree.evaluation import tree_scores

        table = confusion(3, 7)[2]
        expected = tree_scores.lca_height(table, PAPER)
        assert clinical.mean_cost(table, PAPER.costs) == pytest.approx(float(expected))


class TestOdds:
    @given(cases())
    def test_they_are_those_of_the_probability(self, case: tuple[Taxonomy, np.ndarray, np.ndarray]) -> None:
        tree, _, logp = case
        leaf_logp = decide.leaf_logp(logp, tree)
        for target in clinical.targets(tree):
            p = np.exp(leaf_logp)[:, target.leaves].sum(axis=1)
            odds = clinical.log_odds(leaf_logp, target)
            np.testing.assert_allclose(1 / (1 + np.exp(-odds)), p, atol=1e-9)

    def test_they_are_finite_where_a_probability_is_0_or_1(self) -> None:
        leaf_logp = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
        target = clinical.Target("a", np.array([True, False]))
        assert clinical.log_odds(leaf_logp, target).tolist() == [clinical.LIMIT, -clinical.LIMIT]


class TestThreshold:
    @given(SEEDS, st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.booleans())
    def test_it_is_the_lowest_with_that_specificity(self, seed: int, specificity: float, ties: bool) -> None:
        rng = np.random.default_rng(seed)
        values, positive = rng.normal(size=80), rng.random(80) < 0.4
        values = values.round(0) if ties else values
        at = clinical.threshold(values, positive, specificity)
        assert at is not None
        negatives = values[~positive]
        assert (negatives <= at).mean() >= specificity
        lower = negatives[negatives < at]
        assert not len(lower) or (negatives <= lower.max()).mean() < specificity

    def test_too_few_negatives_have_none(self) -> None:
        positive = np.array([True] * 5 + [False] * 19)
        assert clinical.threshold(np.arange(24.0), positive, 0.95) is None
        assert clinical.threshold(np.arange(25.0), np.append(positive, False), 0.95) == 23


class TestNetBenefit:
    def test_by_hand(self) -> None:
        """20 true and 10 false positives of 100 at 20 %: 0.2 - 0.1 x 0.25."""
        at = clinical.net_benefit(np.array(20), np.array(10), np.array(100), np.array([0.2, 0.5]))
        np.testing.assert_allclose(at, [0.175, 0.1])


class TestRecalibration:
    @pytest.fixture(params=range(6))
    def sample(self, request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(request.param)
        x = rng.normal(request.param - 3, 1 + request.param, 200)
        return x, rng.random(200) < 1 / (1 + np.exp(-0.6 * x - 0.3))

    def test_it_is_the_fit_of_statsmodels(self, sample: tuple[np.ndarray, np.ndarray]) -> None:
        import statsmodels.api as sm

        x, positive = sample
        fit = clinical.recalibrate(x, positive)
        assert fit is not None
        joint = sm.Logit(positive.astype(float), sm.add_constant(x)).fit(disp=0).params
        offset = sm.GLM(positive.astype(float), np.ones((len(x), 1)), family=sm.families.Binomial(), offset=x)
        np.testing.assert_allclose([fit.joint, fit.slope], joint, rtol=1e-5, atol=1e-6)
        assert fit.intercept == pytest.approx(offset.fit().params[0], rel=1e-5, abs=1e-6)

    def test_a_step_without_other_weights_stays(self, sample: tuple[np.ndarray, np.ndarray]) -> None:
        x, positive = sample
        fit = clinical.recalibrate(x, positive)
        assert fit is not None
        at = clinical.one_step(clinical.recalibration_parts(x, positive, fit).sum(axis=0), fit)
        np.testing.assert_allclose(at, [fit.slope, fit.intercept], atol=1e-7)

    def test_steps_spread_as_new_fits_do(self) -> None:
        """The bootstrap by one step from the fit, against fits of the same draws by statsmodels."""
        import statsmodels.api as sm

        rng = np.random.default_rng(7)
        x = rng.normal(size=300)
        positive = rng.random(300) < 1 / (1 + np.exp(-0.8 * x))
        fit = clinical.recalibrate(x, positive)
        assert fit is not None
        weights = rng.multinomial(300, np.full(300, 1 / 300), size=200)
        steps = clinical.one_step(weights @ clinical.recalibration_parts(x, positive, fit), fit)[:, 0]
        model = [
            sm.GLM(
                positive.astype(float), sm.add_constant(x), family=sm.families.Binomial(), freq_weights=row
            )
            for row in weights
        ]
        fits = np.array([one.fit().params[1] for one in model])
        assert np.corrcoef(steps, fits)[0, 1] > 0.98
        assert steps.std() == pytest.approx(fits.std(), rel=0.1)

    @pytest.mark.parametrize(
        ("x", "positive"),
        [
            ([0, 1, 2, 3], [False, False, True, True]),
            ([0, 1, 1, 3], [False, False, True, True]),
            ([3, 2, 1, 0], [False, False, True, True]),
            ([0, 1, 2, 3], [True] * 4),
            ([0, 1, 2, 3], [False] * 4),
            ([2, 2, 2, 2], [False, True] * 2),
        ],
    )
    def test_a_fit_that_is_infinite_or_undefined_is_none(self, x: list[int], positive: list[bool]) -> None:
        assert clinical.recalibrate(np.array(x, float), np.array(positive)) is None

    def test_extreme_odds_have_a_fit(self) -> None:
        true, logp = drawn(PAPER, 300, scale=40.0)
        for target in clinical.targets(PAPER):
            fit = clinical.recalibrate(
                clinical.log_odds(decide.leaf_logp(logp, PAPER), target), target.leaves[true]
            )
            assert fit is not None
            assert np.isfinite(fit).all()
            assert abs(fit.slope) < 0.5  # the probabilities have nothing to do with the leaves
