"""The label tree of a run: permuted ones have the same shape and other decisions, files are pruned to the
leaves of the data, and a leaf that is missing is named."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from leukotree import yamlfile
from leukotree.data import trees
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy
from tests.helpers.trees import trees as random_trees

PAPER = Taxonomy.paper()
DATA = "data/some"


def can_be_permuted(tree: Taxonomy) -> bool:
    return any(len(below) < len(tree.leaves) for below in trees.decided_sets(tree))


@given(random_trees(), st.integers(0, 2**31 - 1))
def test_a_permuted_tree_has_the_shape_and_other_decisions(tree: Taxonomy, seed: int) -> None:
    assume(can_be_permuted(tree))
    other = trees.permuted(tree, seed)
    assert trees.shape(other) == trees.shape(tree)
    assert sorted(other.leaves) == sorted(tree.leaves)
    assert [node in other.children for node in other.nodes] == [node in tree.children for node in tree.nodes]
    assert len(other.decisions) == len(tree.decisions)
    assert list(other.decisions) == list(tree.decisions)  # inner nodes keep names and places
    assert trees.decided_sets(other) != trees.decided_sets(tree)
    assert list(trees.permuted(tree, seed).parent_of.items()) == list(other.parent_of.items())


def test_a_seed_gives_the_same_tree_on_each_machine_and_in_each_version() -> None:
    assert [trees.permuted(PAPER, seed).leaves for seed in (0, 1, 2)] == GOLDEN


GOLDEN = [
    ("APML", "reactive", "ALL", "CML", "CLL", "normal", "AML"),
    ("CLL", "reactive", "CML", "normal", "APML", "AML", "ALL"),
    ("reactive", "normal", "CLL", "CML", "APML", "AML", "ALL"),
]


@pytest.mark.parametrize(
    "nested", [{"r": ["a", "b", "c"]}, {"r": {"x": ["a", "b"]}}, {"r": {"x": ["a"], "b": None}}]
)
def test_a_tree_with_one_decision_has_no_other_permutation(nested: dict) -> None:
    own = Taxonomy.from_nested(nested)
    with pytest.raises(InputError, match=r"^tree permuted:1: no permutation .* of data/some$"):
        trees.resolve("permuted:1", own, DATA)


def test_each_other_tree_of_three_leaves_is_drawn_equally_often() -> None:
    """{a, {b, c}} has two other trees: {b, {a, c}} and {c, {a, b}}."""
    own = Taxonomy.from_nested({"r": {"a": None, "x": ["b", "c"]}})
    alone = Counter(trees.permuted(own, seed).children["r"][0] for seed in range(400))
    assert set(alone) == {"b", "c"}
    assert abs(alone["b"] - 200) < 60  # six standard deviations


@given(random_trees())
def test_the_order_and_the_names_of_inner_nodes_do_not_make_another_tree(tree: Taxonomy) -> None:
    renamed = {node: f"{node}'" for node in tree.children}
    pairs = [(renamed[parent], renamed.get(child, child)) for child, parent in tree.parent_of.items()]
    other = Taxonomy.from_edges(reversed(pairs))
    assert trees.decided_sets(other) == trees.decided_sets(tree)
    assert trees.shape(other) == trees.shape(tree)


def test_without_a_choice_it_is_the_tree_of_the_data() -> None:
    own = PAPER.prune(["AML", "CLL", "normal"])
    assert trees.resolve(None, own, DATA) is own


def test_the_papers_tree_is_pruned_to_the_leaves_of_the_data() -> None:
    own = Taxonomy.from_nested({"cells": ["CLL", "AML", "normal"]})
    tree = trees.resolve("paper", own, DATA)
    assert tree.leaves == ("normal", "AML", "CLL")
    assert tree == PAPER.prune(own.leaves)


def test_a_file_is_pruned_and_its_change_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    own = Taxonomy.from_nested({"cells": ["AML", "CLL", "CML"]})
    path.write_text(yamlfile.dump({"top": {"CML": None, "x": ["AML", "CLL", "ALL"]}}))
    assert trees.resolve(str(path), own, DATA).nested() == {
        "top": {"CML": None, "x": {"AML": None, "CLL": None}}
    }
    path.write_text(yamlfile.dump({"top": {"AML": None, "x": ["CML", "CLL", "ALL"]}}))
    os.utime(path, ns=(1, 1))
    assert trees.resolve(str(path), own, DATA).leaves == ("AML", "CML", "CLL")


def test_a_missing_leaf_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("top: [AML, CLL]")
    own = Taxonomy.from_nested({"cells": ["AML", "CLL", "CML"]})
    with pytest.raises(InputError) as refused:
        trees.resolve(str(path), own, DATA)
    assert str(refused.value) == f"{path}: has no leaf 'CML', but data/some has images of it; add it"
    with pytest.raises(InputError, match=r"^tree paper: has no leaf 'x'"):
        trees.resolve("paper", Taxonomy.from_nested({"r": ["x", "AML"]}), DATA)
    path.write_text("top: {CML: [AML, CLL]}")  # an inner node of the name of a leaf
    with pytest.raises(InputError, match="has no leaf 'CML'"):
        trees.resolve(str(path), own, DATA)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        ("a: [b", "not valid YAML"),
        ("[1, 2]", "expected one root"),
        ("r: [a, a]", "twice"),
    ],
)
def test_a_file_that_is_no_tree_is_refused_by_its_name(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=problem) as refused:
        trees.resolve(str(path), PAPER, DATA)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_the_data_set_of_a_run_counts_leaves_in_the_order_of_its_tree(shards: Path) -> None:
    spec = RunSpec().override({"data.shards": str(shards), "tree": "permuted:3"})
    own, data = Dataset.open(shards), trees.open_data(spec)
    assert data.taxonomy.leaves != own.taxonomy.leaves
    names = np.array(data.taxonomy.leaves)[data.leaf_ids]
    assert names.tolist() == own.index["leaf"].tolist()
    assert data.fingerprint == own.fingerprint
    assert trees.open_data(spec) is data
    assert trees.open_data(spec.override({"tree": None})).taxonomy == own.taxonomy
    assert json.dumps(data.taxonomy.nested()) != json.dumps(own.taxonomy.nested())
