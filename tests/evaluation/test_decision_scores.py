"""Scores of each decision and depth against scikit-learn, torchmetrics and definitions."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_auroc, multiclass_average_precision

from leukotree.evaluation import decide, decision_scores, metrics
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import cases, drawn

PAPER = Taxonomy.paper()
ABC = ("a", "b", "c")


def problem(n: int, seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, n), softmax(rng.normal(scale=spread, size=(n, 3)), axis=1)


class TestProblem:
    @settings(max_examples=40)
    @given(st.integers(20, 60), st.integers(0, 10_000))
    def test_scores_of_probabilities_are_those_of_torchmetrics(self, n, seed):
        target, p = problem(n, seed)
        assume(len(set(target)) == 3)
        scores = decision_scores.problem(ABC, target, p, p.argmax(axis=1))
        tensors = torch.tensor(p), torch.tensor(target)
        assert scores.roc_auc == pytest.approx(
            float(multiclass_auroc(*tensors, 3, average="macro")), abs=1e-6
        )
        assert scores.average_precision == pytest.approx(
            float(multiclass_average_precision(*tensors, 3)), abs=1e-6
        )

    @settings(max_examples=40)
    @given(st.integers(1, 30), st.integers(0, 10_000))
    def test_roc_auc_is_the_share_of_pairs_in_the_right_order(self, n, seed):
        target, p = problem(n, seed)
        p = p.round(1)  # ties count half
        for k, area in enumerate(decision_scores.one_vs_rest(target, p, sk.roc_auc_score)):
            inside, rest = p[target == k, k], p[target != k, k]
            order = np.sign(inside[:, None] - rest) / 2 + 0.5
            assert area == pytest.approx(order.mean() if order.size else np.nan, nan_ok=True)

    @settings(max_examples=40)
    @given(st.integers(1, 30), st.integers(0, 10_000))
    def test_average_precision_is_the_mean_precision_at_each_hit(self, n, seed):
        target, p = problem(n, seed)
        for k, precision in enumerate(decision_scores.one_vs_rest(target, p, sk.average_precision_score)):
            hits = (target == k)[np.argsort(-p[:, k])]
            at_hits = (hits.cumsum() / np.arange(1, n + 1))[hits]
            defined = 0 < hits.sum() < n
            assert precision == pytest.approx(at_hits.mean() if defined else np.nan, nan_ok=True)

    @pytest.mark.slow("compares many samples")
    @given(st.integers(1, 30), st.integers(0, 10_000))
    def test_scores_of_predictions_are_those_of_scikit_learn(self, n, seed):
        target, p = problem(n, seed)
        predicted = problem(n, seed + 1)[0]
        scores = decision_scores.problem(ABC, target, p, predicted)
        options = {"labels": range(3), "average": "macro", "zero_division": 0}
        assert scores.accuracy == pytest.approx(sk.accuracy_score(target, predicted))
        assert scores.macro_precision == pytest.approx(sk.precision_score(target, predicted, **options))
        assert scores.macro_recall == pytest.approx(sk.recall_score(target, predicted, **options))
        assert scores.macro_f1 == pytest.approx(sk.f1_score(target, predicted, **options))
        np.testing.assert_array_equal(
            scores.confusion, sk.confusion_matrix(target, predicted, labels=range(3))
        )
        assert scores.support.tolist() == [(target == k).sum() for k in range(3)]

    @settings(max_examples=60)
    @given(st.integers(2, 60), st.integers(0, 10_000), st.sampled_from([1, 2, 8]))
    def test_areas_are_those_of_scikit_learn(self, n, seed, digits):
        rng = np.random.default_rng(seed)
        belongs, p = rng.random(n) < 0.4, rng.random(n).round(digits)  # few digits: ties
        belongs[:2] = True, False
        assert decision_scores.roc_auc(belongs, p) == pytest.approx(sk.roc_auc_score(belongs, p))
        expected = sk.average_precision_score(belongs, p)
        assert decision_scores.average_precision(belongs, p) == pytest.approx(expected)

    def test_a_class_without_samples_is_left_out_of_the_means_of_curves(self):
        target, p = np.array([0, 0, 1, 1]), problem(4, 0)[1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = decision_scores.problem(ABC, target, p, p.argmax(axis=1))
            curves = decision_scores.one_vs_rest(target, p, sk.roc_auc_score)
        assert np.isnan(curves).tolist() == [False, False, True]
        assert scores.roc_auc == pytest.approx(curves[:2].mean())
        assert scores.support.tolist() == [2, 2, 0]

    def test_one_class_alone_has_no_curve_and_no_samples_no_score(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            alone = decision_scores.problem(
                ABC, np.zeros(4, dtype=int), problem(4, 0)[1], np.zeros(4, dtype=int)
            )
            empty = decision_scores.problem(
                ABC, np.zeros(0, dtype=int), np.zeros((0, 3)), np.zeros(0, dtype=int)
            )
        assert np.isnan([alone.roc_auc, alone.average_precision]).all()
        assert (alone.accuracy, alone.balanced_accuracy) == (1, 1)
        assert np.isnan(empty[:7]).all()
        assert empty.confusion.sum() == 0


class TestTree:
    @settings(max_examples=30)
    @given(cases(most=20))
    def test_a_decision_counts_the_samples_below_it_and_no_others(self, case):
        tree, true, logp = case
        scores = decision_scores.per_decision(true, logp, tree)
        assert list(scores) == list(tree.decisions)
        for node, share in metrics.decision_accuracy(true, logp, tree).items():
            assert scores[node].support.sum() == share.n
            assert scores[node].accuracy == pytest.approx(share.value, nan_ok=True)
            assert scores[node].classes == tree.decisions[node]

    @pytest.mark.parametrize("rule", decide.RULES)
    @settings(max_examples=20)
    @given(case=cases(most=20))
    def test_the_last_depth_has_the_leaves_and_accuracy_falls_with_depth(self, case, rule):
        tree, true, logp = case
        depths = decision_scores.per_depth(true, logp, tree, rule)
        predicted, last = decide.leaves(logp, tree, rule), depths[-1]
        assert last.classes == tree.leaves
        np.testing.assert_array_equal(last.confusion, metrics.confusion(true, predicted, len(tree.leaves)))
        assert [depth.classes for depth in depths] == list(tree.cuts)
        assert {depth.support.sum() for depth in depths} == {len(true)}
        if rule != "marginal":
            levels = metrics.level_accuracy(true, predicted, tree)
            assert [depth.accuracy for depth in depths] == pytest.approx([level.value for level in levels])

    def test_marginals_are_right_above_where_the_joint_leaf_is_not(self):
        """No leaf of leukemia is as probable as normal; all of them together are more probable."""
        p = {
            "normal": 0.4,
            "leukemia": 0.6,
            "acute": 0.5,
            "chronic": 0.5,
            "ALL": 0.4,
            "AML": 0.6,
            "CLL": 0.5,
            "CML": 0.5,
        }
        with np.errstate(divide="ignore"):
            logp = np.log([[p.get(edge, 0.0) for edge in PAPER.edges]])
        accuracy = {
            rule: [
                depth.accuracy
                for depth in decision_scores.per_depth(
                    np.array([PAPER.leaves.index("ALL")]), logp, PAPER, rule
                )
            ]
            for rule in ("joint", "marginal")
        }
        assert accuracy == {"joint": [0, 0, 0], "marginal": [1, 0, 0]}

    def test_every_score_of_random_predictions_is_defined_and_in_its_range(self):
        true, logp = drawn(PAPER, 3000)
        problems = decision_scores.per_decision(true, logp, PAPER) | dict(
            enumerate(decision_scores.per_depth(true, logp, PAPER))
        )
        assert len(problems) == 7
        assert all(0 <= value <= 2 for scores in problems.values() for value in scores[:7])
