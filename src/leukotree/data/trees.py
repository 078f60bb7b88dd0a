"""The label tree of a run, over the leaves of its data: the tree of the data set, the paper's, one of a file,
or the tree of the data set with permuted leaves."""

from __future__ import annotations

import itertools
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leukotree import files, seeds, tree_choice
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

if TYPE_CHECKING:
    from leukotree.data.dataset import Dataset
    from leukotree.spec import RunSpec


def open_data(spec: RunSpec) -> Dataset:
    """The data set of a run, on the tree of the run. Raises InputError as `Dataset.open` and `resolve`."""
    from leukotree.data.dataset import Dataset  # loads pandas

    dataset = Dataset.open(spec.data.shards, repeat=spec.data.repeat)
    if spec.tree is None:
        return dataset
    return _on_tree(dataset, json.dumps(resolve(spec.tree, dataset.taxonomy, spec.data.shards).nested()))


@lru_cache(maxsize=8)  # the next trial in a process has the same data
def _on_tree(dataset: Dataset, nested: str) -> Dataset:
    return dataset.on_tree(Taxonomy.from_nested(json.loads(nested)))


def resolve(choice: str | None, own: Taxonomy, shards: str | Path) -> Taxonomy:
    """The tree that a choice (see `tree_choice.parse`) means for a data set with the tree `own`. It has
    exactly the leaves of `own`: a larger tree is pruned to them.

    Raises InputError for a tree that lacks one of the leaves, for a file that is no tree, and for a tree
    whose leaves cannot be permuted.
    """
    return own if choice is None else resolve_nested(choice, json.dumps(own.nested()), shards)


def resolve_nested(choice: str, own: str, shards: str | Path) -> Taxonomy:
    """As `resolve`, for the tree of the data set as JSON. Equal arguments are resolved once."""
    try:
        return _resolved(choice, own, _state(tree_choice.file(choice)))
    except _Lacks as error:
        what = tree_choice.file(choice) or f"tree {choice}"
        raise InputError(f"{what}: has no leaf {error}, but {shards} has images of it; add it") from None
    except _NoOther as error:
        raise InputError(f"tree {choice}: {error} of {shards}") from None


class _Lacks(Exception):
    """The name of a leaf that a tree lacks."""


class _NoOther(Exception):
    """Why a tree has no other permutation."""


def _state(path: str | None) -> tuple[int, ...] | None:
    """The state of a tree's file; None where there is none."""
    if path is None:
        return None
    try:
        return files.state(Path(path).stat())
    except OSError:
        return None  # reading it gives the error


@lru_cache(maxsize=256)  # a study needs it for each of its runs
def _resolved(choice: str, nested: str, state: tuple[int, ...] | None) -> Taxonomy:
    own = Taxonomy.from_nested(json.loads(nested))
    if (seed := tree_choice.seed(choice)) is not None:
        return permuted(own, seed)
    path = tree_choice.file(choice)
    tree = Taxonomy.paper() if path is None else Taxonomy.load(path)
    if lacking := [leaf for leaf in own.leaves if leaf not in tree.leaves]:
        raise _Lacks(repr(lacking[0]))
    return tree.prune(own.leaves)


def permuted(tree: Taxonomy, seed: int) -> Taxonomy:
    """The same shape with the leaves permuted: inner nodes keep their names and places. A function of the
    tree and the seed, the same on every machine.

    A permutation that gives the same tree up to the order of children (see `decided_sets`) is drawn again.
    Raises _NoOther for a tree that has no other.
    """
    before = decided_sets(tree)
    # Only where one decision has all leaves do they all mean the same.
    if all(len(below) == len(tree.leaves) for below in before):
        raise _NoOther("no permutation of the leaves gives another tree than that")
    for draw in itertools.count():
        # Ranks of uniform numbers, since `Generator.permutation` may change between versions of numpy.
        numbers = seeds.generator(seed, "tree/permutation", draw).random(len(tree.leaves))
        order = np.argsort(numbers, kind="stable").tolist()
        new = {leaf: tree.leaves[place] for leaf, place in zip(tree.leaves, order, strict=True)}
        other = Taxonomy.from_edges(
            (parent, new.get(child, child)) for child, parent in tree.parent_of.items()
        )
        if decided_sets(other) != before:
            return other
    raise AssertionError("unreachable")


def decided_sets(tree: Taxonomy) -> frozenset[frozenset[str]]:
    """The set of leaves below each decision. Two trees with the same sets are the same up to the order of
    children, the names of inner nodes and only children: they take the same decisions."""
    above = {leaf: {tree.root, *tree.path(leaf)} for leaf in tree.leaves}
    return frozenset(
        frozenset(leaf for leaf, nodes in above.items() if node in nodes) for node in tree.decisions
    )


def shape(tree: Taxonomy) -> str:
    """The tree without names, and without the order of children: equal for a tree and its permutations."""

    def below(node: str) -> str:
        return f"({''.join(sorted(below(child) for child in tree.children.get(node, ())))})"

    return below(tree.root)
