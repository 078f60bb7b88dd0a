"""Decision rules agree with a person who decides one sample at a time."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import cases, drawn, tied_cases
from tests.helpers.trees import trees

PAPER = Taxonomy.paper()


def paper_logp(**probability: float) -> np.ndarray:
    """(1, E): p(child | parent) by name, the others 0."""
    with np.errstate(divide="ignore"):
        return np.log([[probability.get(edge, 0.0) for edge in PAPER.edges]])


TORN = paper_logp(
    normal=0.35, leukemia=0.65, acute=0.7, chronic=0.3, ALL=0.36, AML=0.34, APML=0.3, CLL=0.5, CML=0.5
)
"""The first branch says leukemia, but no leaf of it is as probable as normal."""


def walk(row: np.ndarray, tree: Taxonomy) -> list[str]:
    """The nodes of a greedy descent, the root first."""
    way = [tree.root]
    while way[-1] in tree.children:
        best = None
        for child in tree.children[way[-1]]:
            if best is None or row[tree.edges.index(child)] > row[tree.edges.index(best)]:
                best = child
        way.append(best)
    return way


def chances(row: np.ndarray, tree: Taxonomy) -> dict[str, float]:
    """Leaf -> probability."""
    return {
        leaf: float(np.exp(sum(row[tree.edges.index(edge)] for edge in tree.path(leaf))))
        for leaf in tree.leaves
    }


class TestRules:
    @given(tied_cases())
    def test_greedy_is_the_walk_from_the_root(self, case):
        tree, logp = case
        assert [tree.leaves[i] for i in decide.greedy(logp, tree)] == [walk(row, tree)[-1] for row in logp]

    @given(tied_cases())
    def test_joint_is_the_first_of_the_most_probable_leaves(self, case):
        tree, logp = case
        expected = [max(tree.leaves, key=chances(row, tree).get) for row in logp]
        assert [tree.leaves[i] for i in decide.joint(logp, tree)] == expected

    @given(cases())
    def test_marginals_are_the_most_probable_sums_of_leaves_at_each_depth(self, case):
        tree, _, logp = case
        picks = decide.marginals(logp, tree)
        assert picks.shape == (len(logp), len(tree.cuts))
        for row, chosen in zip(logp, picks, strict=True):
            p = chances(row, tree)
            for cut, pick in zip(tree.cuts, chosen, strict=True):
                mass = [sum(p[leaf] for leaf in tree.leaves if name in tree.path(leaf)) for name in cut]
                assert mass[pick] == pytest.approx(max(mass), abs=1e-12)

    @given(cases())
    def test_expected_cost_is_the_least_of_all_leaves(self, case):
        tree, _, logp = case
        for row, decided in zip(logp, decide.expected_cost(logp, tree), strict=True):
            p = list(chances(row, tree).values())
            costs = [sum(p[j] * tree.lca_heights[j, k] for j in range(len(p))) for k in range(len(p))]
            assert costs[decided] == pytest.approx(min(costs), abs=1e-12)

    @given(cases())
    def test_leaves_is_the_named_rule_and_marginal_ends_at_the_joint_leaf(self, case):
        tree, _, logp = case
        for rule in decide.RULES:
            by_depth = decide.per_depth(logp, tree, rule)
            np.testing.assert_array_equal(decide.leaves(logp, tree, rule), by_depth[:, -1])
        for rule, alone in (
            ("greedy", decide.greedy),
            ("joint", decide.joint),
            ("expected_cost", decide.expected_cost),
        ):
            np.testing.assert_array_equal(decide.leaves(logp, tree, rule), alone(logp, tree))
        np.testing.assert_array_equal(
            decide.leaves(logp, tree, "marginal"), decide.marginals(logp, tree)[:, -1]
        )

    def test_each_rule_has_its_own_answer(self):
        answers = {"greedy": "ALL", "joint": "normal", "marginal": "normal", "expected_cost": "ALL"}
        decided = {rule: PAPER.leaves[decide.leaves(TORN, PAPER, rule)[0]] for rule in answers}
        assert decided == answers

    @pytest.mark.parametrize("rule", decide.RULES)
    def test_all_rules_agree_on_a_certain_sample_and_take_the_first_of_equal_leaves(self, rule):
        sure = paper_logp(leukemia=1, chronic=1, CML=1, ALL=1)
        assert PAPER.leaves[decide.leaves(sure, PAPER, rule)[0]] == "CML"
        tree = Taxonomy.from_nested({"root": {"a": ["b", "c"], "d": ["e", "f"]}})
        assert decide.leaves(np.log(np.full((3, 6), 0.5)), tree, rule).tolist() == [0, 0, 0]

    def test_an_unknown_rule_is_refused(self):
        with pytest.raises(InputError, match="use one of greedy, joint, marginal, expected_cost"):
            decide.leaves(TORN, PAPER, "mode")

    def test_an_only_child_is_followed_whatever_its_value(self):
        tree = PAPER.prune(["normal", "AML", "APML"])
        row = dict.fromkeys(tree.edges, -1.0) | {"leukemia": 0.0, "acute": -1e30, "APML": -0.5}
        assert tree.leaves[decide.greedy(np.array([[row[edge] for edge in tree.edges]]), tree)[0]] == "APML"

    def test_another_number_of_columns_is_refused(self):
        with pytest.raises(ValueError, match="one column per edge"):
            decide.greedy(np.zeros((2, 3)), PAPER)


class TestContradictions:
    @given(trees(), st.integers(1, 30), st.integers(0, 10_000))
    def test_are_the_samples_whose_nodes_are_not_on_one_path(self, tree, n, seed):
        _, logp = drawn(tree, n, seed, scale=0.5)
        names = [
            [cut[i] for cut, i in zip(tree.cuts, row, strict=True)] for row in decide.marginals(logp, tree)
        ]
        apart = [not any(set(row) <= set(tree.path(leaf)) for leaf in tree.leaves) for row in names]
        assert decide.contradictions(logp, tree) == pytest.approx(np.mean(apart))

    def test_a_certain_sample_has_none_and_an_uncertain_one_has(self):
        sure = paper_logp(leukemia=1, chronic=1, CML=1, ALL=1)
        assert decide.contradictions(sure, PAPER) == 0
        assert decide.contradictions(np.concatenate([sure, TORN]), PAPER) == 0.5
        picks = [cut[i] for cut, i in zip(PAPER.cuts, decide.marginals(TORN, PAPER)[0], strict=True)]
        assert picks == ["leukemia", "acute", "normal"]

    def test_a_tree_of_one_depth_has_none(self):
        tree = Taxonomy.from_nested({"root": ["a", "b", "c"]})
        assert decide.contradictions(drawn(tree, 50)[1], tree) == 0

    def test_without_samples_there_is_no_share(self):
        assert np.isnan(decide.contradictions(np.zeros((0, len(PAPER.edges))), PAPER))


class TestStop:
    @given(tied_cases(), st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0]))
    def test_descends_as_long_as_the_node_is_probable_enough(self, case, threshold):
        tree, logp = case
        expected = []
        for row in logp:
            at, p = tree.root, 1.0
            for node in walk(row, tree)[1:]:
                p *= np.exp(row[tree.edges.index(node)])
                if p < threshold:
                    break
                at = node
            expected.append(at)
        assert [tree.nodes[i] for i in decide.stop(logp, tree, threshold)] == expected

    def test_an_uncertain_sample_stops_where_no_child_is_probable_enough(self):
        assert [PAPER.nodes[decide.stop(TORN, PAPER, t)[0]] for t in (0, 0.3, 0.6, 0.7)] == [
            "ALL",
            "acute",
            "leukemia",
            "root",
        ]

    @pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
    def test_a_threshold_outside_of_0_to_1_is_refused(self, threshold):
        with pytest.raises(InputError, match=r"is in 0\.\.1"):
            decide.stop(TORN, PAPER, threshold)


class TestAbstention:
    @given(cases())
    def test_the_curve_is_what_stop_gives_at_each_threshold(self, case):
        tree, true, logp = case
        for at, coverage, accuracy, precision in zip(*decide.abstention(true, logp, tree), strict=True):
            ends = [tree.nodes[i] for i in decide.stop(logp, tree, at)]
            right = [
                end == tree.leaves[leaf] for end, leaf in zip(ends, true, strict=True) if end in tree.leaves
            ]
            assert coverage == len(right) / len(true)
            assert accuracy == pytest.approx(np.mean(right) if right else np.nan, nan_ok=True)
            paths = [set() if end == tree.root else set(tree.path(end)) for end in ends]
            common = sum(
                len(path & set(tree.path(tree.leaves[leaf]))) for path, leaf in zip(paths, true, strict=True)
            )
            entered = sum(map(len, paths))
            assert precision == pytest.approx(common / entered if entered else np.nan, nan_ok=True)

    @given(tied_cases())
    def test_coverage_falls_from_one_and_thresholds_are_unique(self, case):
        tree, logp = case
        assume(len(logp))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curve = decide.abstention(np.zeros(len(logp)), logp, tree)
        assert (np.diff(curve.threshold) > 0).all()
        assert (np.diff(curve.coverage) <= 0).all()
        assert (curve.threshold[0], curve.threshold[-1], curve.coverage[0]) == (0, 1, 1)
        assert curve.accuracy[0] == pytest.approx((decide.greedy(logp, tree) == 0).mean())

    def test_given_thresholds_are_the_points_of_the_curve(self):
        true, logp = drawn(PAPER, 40)
        curve, all_points = (decide.abstention(true, logp, PAPER, at) for at in ([0, 0.25, 0.5, 1], None))
        assert curve.threshold.tolist() == [0, 0.25, 0.5, 1]
        assert set(curve.coverage) <= set(all_points.coverage)
        assert 0 < curve.coverage[1] < 1

    def test_a_certain_sample_is_covered_up_to_threshold_one(self):
        curve = decide.abstention(np.array([0]), paper_logp(normal=1), PAPER)
        assert [list(values) for values in curve] == [[0, 1], [1, 1], [1, 1], [1, 1]]


class TestMixed:
    @given(cases())
    def test_is_the_two_most_probable_leaves(self, case):
        tree, _, logp = case
        mixed = decide.mixed(logp, tree)
        for i, row in enumerate(logp):
            p = chances(row, tree)
            first, second = sorted(p, key=p.get, reverse=True)[:2]
            assert [tree.leaves[mixed.first[i]], tree.leaves[mixed.second[i]]] == [first, second]
            assert (mixed.mass[i], mixed.ratio[i]) == pytest.approx(
                (p[first] + p[second], p[second] / p[first])
            )
            assert mixed.height[i] == tree.lca_heights[mixed.first[i], mixed.second[i]]

    def test_a_cell_of_two_groups_differs_from_a_certain_one(self):
        both = paper_logp(leukemia=1, acute=1, ALL=0.5, AML=0.5, CLL=1)
        mixed = decide.mixed(np.concatenate([both, paper_logp(normal=1)]), PAPER)
        assert [PAPER.leaves[mixed.first[0]], PAPER.leaves[mixed.second[0]]] == ["ALL", "AML"]
        assert mixed.mass == pytest.approx([1, 1])
        assert mixed.ratio == pytest.approx([1, 0])
        assert mixed.height[0] == 1


class TestLogProbabilities:
    @given(tied_cases())
    def test_leaf_and_node_are_sums_along_the_path(self, case):
        tree, logp = case
        nodes = decide.node_logp(logp, tree)
        assert nodes.shape == (len(logp), len(tree.nodes))
        assert (nodes[:, 0] == 0).all()
        for column, node in enumerate(tree.edges, 1):
            expected = logp[:, [tree.edges.index(edge) for edge in tree.path(node)]].sum(axis=1)
            np.testing.assert_array_equal(nodes[:, column], expected)
        np.testing.assert_array_equal(
            decide.leaf_logp(logp, tree), nodes[:, [tree.nodes.index(leaf) for leaf in tree.leaves]]
        )

    @given(cases())
    def test_leaves_sum_to_one(self, case):
        tree, _, logp = case
        np.testing.assert_allclose(np.exp(decide.leaf_logp(logp, tree)).sum(axis=1), 1)

    def test_minus_infinity_is_a_probability_of_zero_and_not_nan(self):
        logs = dict(
            zip(PAPER.leaves, decide.leaf_logp(paper_logp(normal=1, acute=1, AML=1), PAPER)[0], strict=True)
        )
        assert logs["normal"] == 0
        assert logs["CML"] == -np.inf

    @given(cases(), st.floats(-5, 5))
    def test_edges_come_back_from_the_leaves_up_to_a_constant(self, case, constant):
        tree, _, logp = case
        np.testing.assert_allclose(
            decide.edge_logp(decide.leaf_logp(logp, tree) + constant, tree), logp, atol=1e-9
        )

    def test_a_node_with_probability_zero_gives_no_nan(self):
        with np.errstate(divide="ignore"):
            leaves = np.log([[0.25, 0.75, 0, 0, 0, 0, 0]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            edges = dict(zip(PAPER.edges, decide.edge_logp(leaves, PAPER)[0], strict=True))
        assert edges["reactive"] == pytest.approx(np.log(0.75))
        assert (edges["leukemia"], edges["acute"], edges["CML"]) == (-np.inf, 0, 0)

    @given(cases())
    def test_at_decisions_has_each_sample_whose_leaf_is_below(self, case):
        tree, true, logp = case
        problems = {node: (target, logs) for node, target, logs in decide.at_decisions(true, logp, tree)}
        assert list(problems) == list(tree.decisions)
        for node, (target, logs) in problems.items():
            rows = [i for i, leaf in enumerate(true) if node in (tree.root, *tree.path(tree.leaves[leaf]))]
            children = tree.decisions[node]
            assert all(
                children[i] in tree.path(tree.leaves[true[row]]) for i, row in zip(target, rows, strict=True)
            )
            np.testing.assert_array_equal(
                logs, logp[rows][:, [tree.edges.index(child) for child in children]]
            )
