"""The label tree: what it derives, what it refuses, and that pruning keeps paths."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree.errors import InputError
from leukotree.taxonomy import PAPER, Taxonomy


@st.composite
def trees(draw: st.DrawFn) -> Taxonomy:
    """Random ragged trees of 2 to about 20 leaves: node i > 0 hangs below an earlier node."""
    parents = [draw(st.integers(0, i)) for i in range(draw(st.integers(2, 25)))]
    edges = [(f"n{parent}", f"n{child + 1}") for child, parent in enumerate(parents)]
    if len({child for _, child in edges} - {parent for parent, _ in edges}) < 2:
        edges.append(("n0", "extra"))
    return Taxonomy.from_edges(edges)


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
def test_nested_form_survives_json(tree: Taxonomy) -> None:
    assert Taxonomy.from_nested(json.loads(json.dumps(tree.nested()))) == tree


@given(trees(), st.data())
def test_pruned_leaves_keep_their_paths(tree: Taxonomy, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(tree.leaves), min_size=2, unique=True))
    pruned = tree.prune(kept)
    assert set(pruned.leaves) == set(kept)
    assert all(pruned.path(leaf) == tree.path(leaf) for leaf in kept)
    assert np.array_equal(pruned.choices >= 0, pruned.choices != -1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("root: {a: null, b: {a: null, c: null}}", "'a' stands in the tree twice"),
        ("root: {a: null, a: null}", "given twice"),
        ("root: [a, a]", "'a' stands in the tree twice"),
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


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ([("a", "b"), ("b", "a")], "cycle"),
        ([("r", "x"), ("r", "y"), ("a", "b"), ("b", "a")], "cycle"),
        ([("r", "x"), ("s", "y")], "several roots"),
    ],
)
def test_edges_that_are_no_tree_are_refused(edges: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Taxonomy.from_edges(edges)


def test_pruning_to_one_leaf_is_refused() -> None:
    with pytest.raises(InputError, match="at least two"):
        Taxonomy.from_nested(PAPER).prune(["AML"])
