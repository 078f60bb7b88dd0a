"""The label tree: its derived tables, the trees that it refuses, and pruning."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree.errors import InputError
from leukotree.taxonomy import PAPER, Taxonomy
from tests.helpers.trees import trees


def test_the_paper_has_four_decisions_ten_logits_and_seven_leaves() -> None:
    tree = Taxonomy.paper()
    assert tree.decisions == {
        "root": ("normal", "reactive", "leukemia"),
        "leukemia": ("acute", "chronic"),
        "acute": ("ALL", "AML", "APML"),
        "chronic": ("CLL", "CML"),
    }
    assert len(tree.edges) == 10
    assert tree.leaves == ("normal", "reactive", "ALL", "AML", "APML", "CLL", "CML")
    assert tree.path("APML") == ("leukemia", "acute", "APML")


def test_a_normal_cell_has_no_acute_or_chronic_label() -> None:
    tree = Taxonomy.paper()
    assert tree.choices[tree.leaves.index("normal")].tolist() == [0, -1, -1, -1]
    assert tree.choices[tree.leaves.index("CML")].tolist() == [2, 1, -1, 1]


def test_levels_heights_and_cuts_of_the_paper() -> None:
    tree = Taxonomy.paper()
    assert tree.decision_levels == {"root": 1, "leukemia": 2, "acute": 3, "chronic": 3}
    assert [tree.heights[node] for node in ("root", "leukemia", "acute", "CML")] == [3, 2, 1, 0]
    assert tree.cuts == (
        ("normal", "reactive", "leukemia"),
        ("normal", "reactive", "acute", "chronic"),
        ("normal", "reactive", "ALL", "AML", "APML", "CLL", "CML"),
    )
    assert tree.cut_of_leaf.tolist() == [[0, 1, 2, 2, 2, 2, 2], [0, 1, 2, 2, 2, 3, 3], [0, 1, 2, 3, 4, 5, 6]]
    far = dict(zip(tree.leaves, tree.lca_heights[tree.leaves.index("AML")].tolist(), strict=True))
    assert far == {"normal": 3, "reactive": 3, "ALL": 1, "AML": 0, "APML": 1, "CLL": 2, "CML": 2}


def test_an_only_child_is_no_level_but_counts_in_the_height() -> None:
    tree = Taxonomy.from_nested({"root": {"a": {"b": {"c": None, "d": {"e": ["f", "g"]}}}}})
    assert tree.decision_levels == {"b": 1, "e": 2}
    assert tree.heights["root"] == 5
    assert tree.lca_heights.tolist() == [[0, 3, 3], [3, 0, 1], [3, 1, 0]]
    assert tree.cuts == (("a",), ("b",), ("c", "d"), ("c", "e"), ("c", "f", "g"))


def test_pruning_leaves_an_only_child_on_the_path_but_makes_no_decision_of_it() -> None:
    tree = Taxonomy.paper().prune(["normal", "reactive", "AML", "APML"])
    assert tree.decisions == {"root": ("normal", "reactive", "leukemia"), "acute": ("AML", "APML")}
    assert tree.path("AML") == ("leukemia", "acute", "AML")


@given(trees())
def test_paths_choices_and_matrices_agree(tree: Taxonomy) -> None:
    assert (tree.path_matrix.sum(axis=1) == [len(tree.path(leaf)) for leaf in tree.leaves]).all()
    for leaf, row in zip(tree.leaves, tree.choices, strict=True):
        for choice, (node, children) in zip(row, tree.decisions.items(), strict=True):
            reached = node == tree.root or node in tree.path(leaf)
            assert (choice >= 0) == reached
            assert not reached or children[choice] in tree.path(leaf)


@given(trees())
def test_places_and_columns_are_those_of_nodes_and_edges(tree: Taxonomy) -> None:
    assert [tree.nodes[tree.place[name]] for name in tree.nodes] == list(tree.nodes)
    assert [tree.edges[tree.place[name] - 1] for name in tree.edges] == list(tree.edges)
    assert {
        name: tuple(tree.edges[i] for i in columns) for name, columns in tree.columns.items()
    } == tree.children


@given(trees())
def test_a_level_is_one_more_than_the_decisions_above(tree: Taxonomy) -> None:
    assert list(tree.decision_levels) == list(tree.decisions)
    for node, level in tree.decision_levels.items():
        above = [] if node == tree.root else [tree.root, *tree.path(node)[:-1]]
        assert level == 1 + sum(len(tree.children[name]) > 1 for name in above)
    assert set(tree.decision_levels.values()) == set(range(1, max(tree.decision_levels.values()) + 1))


@given(trees())
def test_a_height_is_the_longest_way_down_and_falls_along_every_edge(tree: Taxonomy) -> None:
    for node, height in tree.heights.items():
        ways = [tree.path(leaf) for leaf in tree.leaves if node in (tree.root, *tree.path(leaf))]
        depth = 0 if node == tree.root else len(tree.path(node))
        assert height == max(len(way) - depth for way in ways)
    assert set(tree.heights) == set(tree.nodes)
    assert all(tree.heights[parent] > tree.heights[child] for child, parent in tree.parent_of.items())


@given(trees())
def test_heights_of_common_ancestors_are_an_ultrametric(tree: Taxonomy) -> None:
    far = tree.lca_heights
    np.testing.assert_array_equal(far, far.T)
    np.testing.assert_array_equal(far == 0, np.eye(len(tree.leaves), dtype=bool))
    assert (far[:, None, :] <= np.maximum(far[:, :, None], far[None, :, :])).all()
    for row, leaf in enumerate(tree.leaves):
        for column, other in enumerate(tree.leaves):
            common = [
                name
                for name in tree.nodes
                if all(name in (tree.root, *tree.path(one)) for one in (leaf, other))
            ]
            assert far[row, column] == min(tree.heights[name] for name in common)


@given(trees())
def test_every_cut_divides_the_leaves_and_the_last_is_the_leaves(tree: Taxonomy) -> None:
    assert tree.cut_of_leaf.shape == (len(tree.cuts), len(tree.leaves))
    assert len(tree.cuts) == max(len(tree.path(leaf)) for leaf in tree.leaves) == tree.heights[tree.root]
    assert tree.cuts[-1] == tree.leaves
    for depth, (cut, places) in enumerate(zip(tree.cuts, tree.cut_of_leaf, strict=True), 1):
        assert [name for name in tree.nodes if name in cut] == list(cut)  # preorder
        assert set(places) == set(range(len(cut)))
        for leaf, place in zip(tree.leaves, places, strict=True):
            path = tree.path(leaf)
            assert cut[place] == (path[depth - 1] if depth <= len(path) else leaf)


@given(trees())
def test_nested_form_survives_json(tree: Taxonomy) -> None:
    assert Taxonomy.from_nested(json.loads(json.dumps(tree.nested()))) == tree


@given(trees(), st.data())
def test_pruned_leaves_keep_their_paths(tree: Taxonomy, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(tree.leaves), min_size=2, unique=True))
    pruned = tree.prune(kept)
    assert set(pruned.leaves) == set(kept)
    assert all(pruned.path(leaf) == tree.path(leaf) for leaf in kept)
    assert pruned.decisions.keys() <= tree.decisions.keys()
    for node, below in pruned.decisions.items():
        assert below == tuple(child for child in tree.decisions[node] if child in pruned.nodes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("root: {a: null, b: {a: null, c: null}}", "'a' is in the tree twice"),
        ("root: {a: null, a: null}", "given twice"),
        ("root: [a, a]", "'a' is in the tree twice"),
        ("root: &loop {a: null, b: *loop}", "recursive|cycle"),
        ("root: {a: {b: null}}", "at least two leaves"),
        ("root: null", "no root|at least two"),
        ("[a, b]", "one root"),
        ("root: {1: null, 2: null}", "put quotes"),
        ("root: {a: 3, b: null}", "mapping or a list"),
        ("root: {a: {}, b: null}", "mapping or a list"),
        ("root: [a, b", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_malformed_tree_is_refused_in_one_line(tmp_path, text: str, says: str) -> None:
    file = tmp_path / "tree.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        Taxonomy.load(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tree_with_very_many_leaves_is_read_at_once() -> None:
    leaves = [f"leaf{number}" for number in range(30_000)]
    before = time.process_time()
    Taxonomy.from_nested({"root": leaves})
    assert time.process_time() - before < 2
    with pytest.raises(InputError, match="'leaf7' is in the tree twice"):
        Taxonomy.from_nested({"root": [*leaves, "leaf7"]})


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ([("a", "b"), ("b", "a")], "cycle"),
        ([("r", "x"), ("r", "y"), ("a", "b"), ("b", "a")], "cycle"),
        ([("r", "x"), ("s", "y")], "several roots"),
    ],
)
def test_edges_that_form_no_tree_are_refused(edges: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Taxonomy.from_edges(edges)


def test_pruning_to_one_leaf_is_refused() -> None:
    with pytest.raises(InputError, match="at least two"):
        Taxonomy.from_nested(PAPER).prune(["AML"])
