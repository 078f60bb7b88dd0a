"""Scores against scikit-learn, against scipy, and against small cases that can be checked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import binomtest
from sklearn import metrics as sk

from leukotree.evaluation import decide, metrics
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import drawn, normalised

PAPER = Taxonomy.paper()
L, E = len(PAPER.leaves), len(PAPER.edges)
leaf_pairs = st.lists(st.tuples(st.integers(0, L - 1), st.integers(0, L - 1)), min_size=1, max_size=40)


def one_hot(leaf: str, confidence: float = 4.0) -> np.ndarray:
    """An image that is of one leaf, by `confidence` logits at each node."""
    return normalised(np.array([[confidence * (edge in PAPER.path(leaf)) for edge in PAPER.edges]]), PAPER)[0]


@given(leaf_pairs)
def test_scores_are_those_of_scikit_learn_over_all_leaves(pairs):
    true, predicted = np.array(pairs).T
    scores = metrics.summary(true, predicted, L)
    options = {"labels": range(L), "average": "macro", "zero_division": 0}
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
    assert scores["macro_precision"] == pytest.approx(sk.precision_score(true, predicted, **options))
    assert scores["macro_recall"] == pytest.approx(sk.recall_score(true, predicted, **options))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(true, predicted, **options))
    assert metrics.macro_f1(true, predicted, L) == pytest.approx(scores["macro_f1"])
    present = sk.recall_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    assert scores["balanced_accuracy"] == pytest.approx(present)


def test_a_leaf_without_samples_counts_as_zero_in_the_macro_mean_but_not_in_balanced_accuracy():
    scores = metrics.summary(np.array([0, 1]), np.array([0, 1]), 4)
    assert (scores["accuracy"], scores["balanced_accuracy"], scores["macro_f1"]) == (1, 1, 0.5)


def test_without_samples_scores_are_nan():
    assert all(np.isnan(value) for value in metrics.summary(np.array([]), np.array([]), L).values())


@given(leaf_pairs)
def test_confusion_rows_are_true_and_columns_predicted(pairs):
    true, predicted = np.array(pairs).T
    table = metrics.confusion(true, predicted, L)
    assert table.shape == (L, L)
    assert all(table[t, p] == pairs.count((t, p)) for t, p in pairs)
    assert table.sum() == len(pairs)


@given(st.integers(0, 10_000))
def test_decision_accuracy_is_conditional_on_reaching_the_node(seed):
    rng = np.random.default_rng(seed)
    true, logp = rng.integers(0, L, 30), normalised(rng.normal(size=(30, E)), PAPER)
    accuracies = metrics.decision_accuracy(true, logp, PAPER)
    assert list(accuracies) == ["root", "leukemia", "acute", "chronic"]
    for node, children in PAPER.decisions.items():
        right = []
        for row, leaf in zip(logp, true, strict=True):
            on_path = [child for child in children if child in PAPER.path(PAPER.leaves[leaf])]
            if on_path:
                right.append(max(children, key=lambda c: row[PAPER.edges.index(c)]) == on_path[0])
        assert accuracies[node].n == len(right)
        assert not right or accuracies[node].value == pytest.approx(np.mean(right))


@given(leaf_pairs)
def test_level_accuracy_falls_with_depth_and_ends_at_leaf_accuracy(pairs):
    true, predicted = np.array(pairs).T
    levels = metrics.level_accuracy(true, predicted, PAPER)
    values = [level.value for level in levels]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(np.mean(true == predicted))
    assert {level.n for level in levels} == {len(pairs)}


def test_level_accuracy_by_hand():
    leaf = PAPER.leaves.index
    true = np.array([leaf("AML"), leaf("AML"), leaf("normal")])
    predicted = np.array([leaf("ALL"), leaf("CLL"), leaf("AML")])
    shares = [level.value for level in metrics.level_accuracy(true, predicted, PAPER)]
    assert shares == pytest.approx([2 / 3, 1 / 3, 0])


class TestPatients:
    def test_mode_takes_the_most_frequent_leaf(self):
        logp = np.stack([one_hot("AML", 1), one_hot("AML", 1), one_hot("APML", 9)])
        groups = metrics.by_patient(["p"] * 3, np.zeros(3), logp, PAPER, "mode")
        assert [PAPER.leaves[i] for i in groups.predicted] == ["AML"]
        assert groups.images.tolist() == [3]

    @pytest.mark.parametrize("surer", ["AML", "APML"])
    def test_a_tied_mode_goes_to_the_higher_mean_probability(self, surer):
        logp = np.stack(
            [one_hot("AML", 5 if surer == "AML" else 2), one_hot("APML", 5 if surer == "APML" else 2)]
        )
        groups = metrics.by_patient(["p", "p"], np.zeros(2), logp, PAPER, "mode")
        assert PAPER.leaves[groups.predicted[0]] == surer

    def test_a_tie_in_both_goes_to_the_first_in_preorder(self):
        logp = np.stack([one_hot("CML"), one_hot("CLL")])
        groups = metrics.by_patient(["p", "p"], np.zeros(2), logp, PAPER, "mode")
        assert PAPER.leaves[groups.predicted[0]] == "CLL"

    def test_one_certain_image_changes_the_mean_and_one_excluded_leaf_the_mean_log(self):
        """Probabilities of (normal, reactive): two lukewarm images for normal, one that all but excludes
        it."""
        tree = Taxonomy.from_nested({"root": ["normal", "reactive"]})
        logp = np.log([[0.7, 0.3], [0.7, 0.3], [0.2, 0.8]])
        excluded = np.log([[0.7, 0.3], [0.9, 0.1], [0.001, 0.999]])

        def decided(values, rule):
            return tree.leaves[metrics.by_patient(["p"] * 3, np.zeros(3), values, tree, rule).predicted[0]]

        assert [decided(logp, rule) for rule in metrics.RULES] == ["normal"] * 3
        assert [decided(excluded, rule) for rule in metrics.RULES] == ["normal", "normal", "reactive"]

    def test_a_patient_with_cells_of_two_leaves_is_two_groups(self):
        leaf = PAPER.leaves.index
        true = np.array([leaf("normal"), leaf("AML"), leaf("AML"), leaf("AML")])
        logp = np.stack([one_hot("normal"), one_hot("AML"), one_hot("APML"), one_hot("AML")])
        groups = metrics.by_patient(["p", "p", "p", "q"], true, logp, PAPER, "mode")
        assert list(zip(groups.patient, groups.true, groups.images, strict=True)) == [
            ("p", leaf("normal"), 1),
            ("p", leaf("AML"), 2),
            ("q", leaf("AML"), 1),
        ]

    def test_images_without_a_patient_form_no_group(self):
        groups = metrics.by_patient(["", ""], np.zeros(2), np.stack([one_hot("AML")] * 2), PAPER, "mode")
        assert len(groups.true) == len(groups.predicted) == 0

    @pytest.mark.parametrize("decision", decide.RULES)
    @pytest.mark.parametrize("rule", metrics.RULES)
    @given(seed=st.integers(0, 10_000))
    def test_one_image_per_patient_is_the_prediction_of_that_image(self, rule, decision, seed):
        true, logp = drawn(PAPER, 12, seed, scale=3)
        groups = metrics.by_patient([f"{i:02}" for i in range(12)], true, logp, PAPER, rule, decision)
        np.testing.assert_array_equal(groups.predicted, decide.leaves(logp, PAPER, decision))

    @pytest.mark.parametrize("decision", decide.RULES)
    @settings(max_examples=30)
    @given(seed=st.integers(0, 10_000))
    def test_agrees_with_going_through_the_groups_one_by_one(self, decision, seed):
        true, logp = drawn(PAPER, 40, seed)
        patient = np.random.default_rng(seed).choice(["", "p", "q", "r"], 40)
        by_rule = {
            rule: metrics.by_patient(patient, true, logp, PAPER, rule, decision) for rule in metrics.RULES
        }
        groups = sorted({(p, leaf) for p, leaf in zip(patient, true, strict=True) if p})
        assert list(zip(by_rule["mode"].patient, by_rule["mode"].true, strict=True)) == groups
        for row, (name, leaf) in enumerate(groups):
            of_group = logp[(patient == name) & (true == leaf)]
            leaves, votes = (
                decide.leaf_logp(of_group, PAPER),
                decide.leaves(of_group, PAPER, decision).tolist(),
            )
            best = max(range(L), key=lambda one: (votes.count(one), np.exp(leaves[:, one]).mean()))
            assert (by_rule["mode"].images[row], by_rule["mode"].predicted[row]) == (len(of_group), best)
            for rule, mean in (
                ("mean_probability", logsumexp(leaves, axis=0)),
                ("mean_log_probability", leaves.mean(axis=0)),
            ):
                edges = [logsumexp(mean[below]) for below in PAPER.leaves_below]
                parents = [
                    PAPER.edges.index(up) if (up := PAPER.parent_of[edge]) != "root" else None
                    for edge in PAPER.edges
                ]
                edges = [
                    p - (logsumexp(mean) if up is None else edges[up])
                    for p, up in zip(edges, parents, strict=True)
                ]
                assert by_rule[rule].predicted[row] == decide.leaves(np.array([edges]), PAPER, decision)[0]


class TestWilson:
    @given(st.integers(5, 200), st.data())
    def test_agrees_with_scipy(self, n, data):
        k = data.draw(st.integers(0, n))
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert metrics.wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)

    @pytest.mark.parametrize("n", [0, 1, 4])
    def test_is_not_estimable_below_five_groups(self, n):
        assert metrics.wilson(n, n) is None
