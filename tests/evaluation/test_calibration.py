"""Calibration against torchmetrics and scikit-learn, and against known temperatures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from leukotree.evaluation import calibration, decide
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import cases, drawn

PAPER = Taxonomy.paper()
PLANTED = {"root": 2.5, "leukemia": 0.4, "acute": 1.0, "chronic": 6.0}


def problem(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), softmax(rng.normal(scale=2, size=(n, classes)), axis=1)


def honest(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n,) true leaves, drawn from the (n, E) log-probabilities that come with them."""
    _, logp = drawn(PAPER, n, seed)
    chance = np.exp(decide.leaf_logp(logp, PAPER)).cumsum(axis=1)
    return (np.random.default_rng(seed).random((n, 1)) > chance / chance[:, -1:]).sum(axis=1), logp


class TestErrors:
    @given(st.integers(1, 60), st.integers(0, 10_000))
    def test_brier_of_two_classes_is_twice_that_of_scikit_learn(self, n, seed):
        target, p = problem(n, 2, seed)
        assert calibration.brier(target, p) == pytest.approx(
            2 * brier_score_loss(target, p[:, 1], pos_label=1)
        )

    @given(st.integers(1, 60), st.integers(3, 7), st.integers(0, 10_000))
    def test_brier_of_more_classes_is_that_of_scikit_learn_not_scaled(self, n, classes, seed):
        target, p = problem(n, classes, seed)
        expected = brier_score_loss(target, p, labels=range(classes), scale_by_half=False)
        assert calibration.brier(target, p) == pytest.approx(expected)

    def test_bounds_of_the_brier_score(self):
        assert calibration.brier(np.array([0, 1]), np.array([[1.0, 0], [0, 1.0]])) == 0
        assert calibration.brier(np.array([0, 1]), np.array([[0, 1.0], [1.0, 0]])) == 2

    def test_without_samples_both_are_nan(self):
        assert np.isnan(calibration.ece(np.zeros(0, dtype=int), np.zeros((0, 3))))
        assert np.isnan(calibration.brier(np.zeros(0, dtype=int), np.zeros((0, 3))))


class TestReliability:
    def test_bins_by_hand(self):
        """30 images of 15 confidences: a bin for each of them. The class of three images is wrong."""
        confidence = np.repeat(np.arange(60, 90, 2) / 100, 2)
        p = np.column_stack([confidence, 1 - confidence])
        target = np.zeros(30, dtype=int)
        target[[0, 1, 2]] = 1
        curve = calibration.reliability(target, p, np.arange(30) % 2)  # two patients: one bin
        assert (curve.count.tolist(), curve.accuracy.tolist()) == ([30], [0.9])
        assert curve.confidence == pytest.approx([confidence.mean()])
        curve = calibration.reliability(np.repeat(target, 5), np.repeat(p, 5, axis=0))
        assert curve.count.tolist() == [10] * 15
        np.testing.assert_allclose(curve.confidence, np.arange(60, 90, 2) / 100)
        np.testing.assert_allclose(curve.accuracy, [0, 0.5, *[1] * 13])

    def test_equal_probabilities_are_one_bin(self):
        curve = calibration.reliability(np.zeros(40, dtype=int), np.tile([1.0, 0.0], (40, 1)))
        assert curve.count.tolist() == [40]
        assert calibration.ece(np.zeros(40, dtype=int), np.tile([1.0, 0.0], (40, 1))) == 0

    def test_calibrated_probabilities_are_on_the_diagonal(self):
        true, logp = honest(20_000)
        curve = calibration.reliability(true, np.exp(decide.leaf_logp(logp, PAPER)))
        assert len(curve.count) == calibration.BINS
        np.testing.assert_allclose(curve.accuracy, curve.confidence, atol=0.05)
        assert calibration.ece(true, np.exp(decide.leaf_logp(logp, PAPER))) < 0.01

    def test_the_error_of_the_most_probable_class_is_that_of_torchmetrics_where_noise_is_small(self):
        """20,000 images whose probabilities are too sharp: the bias is small, and so is what the norm and the
        bins change."""
        true, logp = honest(20_000, seed=1)
        p = np.exp(
            decide.leaf_logp(calibration.apply(logp, PAPER, dict.fromkeys(PAPER.decisions, 0.5)), PAPER)
        )
        theirs = multiclass_calibration_error(
            torch.tensor(p), torch.tensor(true), p.shape[1], n_bins=15, norm="l2"
        )
        assert calibration.ece(true, p) == pytest.approx(float(theirs), rel=0.05)


class TestTemperature:
    def test_planted_temperatures_are_fitted_and_improve_the_calibration(self):
        true, logp = honest(8000)
        spoilt = calibration.apply(logp, PAPER, {node: 1 / t for node, t in PLANTED.items()})
        temperatures = calibration.fit(true, spoilt, PAPER)
        assert temperatures == pytest.approx(PLANTED, rel=0.15)
        before, after = (
            {
                node: calibration.ece(target, np.exp(logs))
                for node, target, logs in decide.at_decisions(true, one, PAPER)
            }
            for one in (spoilt, calibration.apply(spoilt, PAPER, temperatures))
        )
        assert all(after[node] < before[node] for node in PLANTED if PLANTED[node] != 1)
        assert max(after.values()) < 0.04

    @given(cases(most=40))
    def test_no_other_temperature_has_a_lower_loss(self, case):
        tree, true, logp = case
        temperatures = calibration.fit(true, logp, tree)
        assert list(temperatures) == list(tree.decisions)
        grid = np.geomspace(*calibration.BOUNDS, 25)

        def loss(logs, target, t):
            scaled = logs / t - np.logaddexp.reduce(logs / t, axis=1, keepdims=True)
            return -scaled[np.arange(len(target)), target].mean()

        for node, target, logs in decide.at_decisions(true, logp, tree):
            if len(target):
                assert (
                    loss(logs, target, temperatures[node]) <= min(loss(logs, target, t) for t in grid) + 1e-3
                )

    @given(cases(), st.floats(0.05, 20))
    def test_order_among_siblings_stays_and_leaves_still_sum_to_one(self, case, temperature):
        tree, _, logp = case
        scaled = calibration.apply(logp, tree, dict.fromkeys(tree.decisions, temperature))
        np.testing.assert_array_equal(decide.greedy(scaled, tree), decide.greedy(logp, tree))
        for columns in tree.columns.values():
            np.testing.assert_array_equal(scaled[:, columns].argmax(axis=1), logp[:, columns].argmax(axis=1))
        np.testing.assert_allclose(np.exp(decide.leaf_logp(scaled, tree)).sum(axis=1), 1)

    @given(cases())
    def test_temperature_one_changes_nothing(self, case):
        tree, _, logp = case
        before = logp.copy()
        np.testing.assert_allclose(
            calibration.apply(logp, tree, dict.fromkeys(tree.decisions, 1.0)), logp, atol=1e-12
        )
        np.testing.assert_array_equal(logp, before)

    def test_a_decision_without_samples_keeps_temperature_one(self):
        _, logp = drawn(PAPER, 30)
        temperatures = calibration.fit(np.zeros(30, dtype=int), logp, PAPER)  # all normal
        assert temperatures["root"] != 1
        assert [temperatures[node] for node in ("leukemia", "acute", "chronic")] == [1, 1, 1]

    def test_a_true_class_with_probability_zero_does_not_change_the_temperature(self):
        tree = Taxonomy.from_nested({"root": ["a", "b", "c"]})
        true, logp = drawn(tree, 200)
        with np.errstate(divide="ignore"):
            impossible = np.log([[0.0, 0.5, 0.5]] * 3)
        with_it = calibration.fit(np.append(true, [0, 0, 0]), np.concatenate([logp, impossible]), tree)
        assert with_it == pytest.approx(calibration.fit(true, logp, tree))

    def test_predictions_without_an_error_end_at_the_lower_bound(self):
        tree = Taxonomy.from_nested({"root": ["a", "b"]})
        temperatures = calibration.fit(np.array([0, 1]), np.log([[0.7, 0.3], [0.3, 0.7]]), tree)
        assert temperatures["root"] == pytest.approx(calibration.BOUNDS[0], rel=0.05)
