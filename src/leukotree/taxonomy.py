"""The label tree: nodes, edges, paths to leaves, and the decisions on them.

A *decision* is a node with two or more children. Pruning to the leaves of a study can leave a node with one
child. Its edge stays in the tree with the conditional probability 1, but the node is not a decision and has
no logits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from leukotree import yamlfile
from leukotree.errors import InputError

PAPER: dict[str, Any] = {
    "root": {
        "normal": None,
        "reactive": None,
        "leukemia": {
            "acute": {"ALL": None, "AML": None, "APML": None},
            "chronic": {"CLL": None, "CML": None},
        },
    }
}
"""The tree of arXiv 2502.10899: {normal, reactive, leukemia}; {acute, chronic}; {ALL, AML, APML}; {CLL,
CML}."""
MAX_DEPTH = 100
"""Most levels of a tree."""


@dataclass(frozen=True)
class Taxonomy:
    """A rooted tree of names, whose leaves may have different depths.

    `from_nested`, `from_edges` and `load` build it and check it.
    """

    root: str
    parent_of: dict[str, str]
    """Node -> its parent, for all nodes but the root, in preorder. All orders below follow from this one."""
    given_costs: np.ndarray | None = field(default=None, compare=False, repr=False)
    """(L, L) costs of mistakes, see `costs`. None for the heights."""

    def ordered_as(self, other: Taxonomy) -> bool:
        """Whether both have the same edges in the same order. `==` does not compare the order."""
        return list(self.parent_of.items()) == list(other.parent_of.items())

    @classmethod
    def paper(cls) -> Taxonomy:
        """The tree of the paper. It is the default."""
        return cls.from_nested(PAPER)

    @classmethod
    def load(cls, path: str | Path) -> Taxonomy:
        """A taxonomy from a YAML file of nested mappings with one root. Raises InputError naming the file."""
        try:
            return cls.from_nested(yamlfile.load(path))
        except InputError as error:
            message = str(error)
            raise InputError(message if message.startswith(str(path)) else f"{path}: {message}") from error

    @classmethod
    def from_nested(cls, nested: Any) -> Taxonomy:
        """A taxonomy from `{root: {child: {...}, leaf: null}}`. Leaves may also be a list of names. Raises
        InputError."""
        if not isinstance(nested, Mapping) or len(nested) != 1:
            raise InputError("taxonomy: expected one root name with its children below it")
        edges: list[tuple[str, str]] = []

        def walk(name: Any, below: Any, depth: int) -> None:
            if below is None:
                return
            if depth > MAX_DEPTH:  # also a mapping that contains itself
                raise InputError(f"taxonomy: over {MAX_DEPTH} levels at {name!r}")
            if isinstance(below, list):
                if odd := [leaf for leaf in below if not isinstance(leaf, str)]:
                    raise InputError(
                        f"taxonomy: {str(odd[0])[:60]!r} below {name!r} is not a text; put quotes around it"
                    )
                if twice := [leaf for leaf, count in Counter(below).items() if count > 1]:
                    raise _twice(twice[0])
                below = dict.fromkeys(below)
            if not isinstance(below, Mapping) or not below:
                raise InputError(f"taxonomy: the children of {name!r} must be a mapping or a list of names")
            for child, deeper in below.items():
                edges.append((name, child))
                walk(child, deeper, depth + 1)

        (root, children), *_ = nested.items()
        walk(root, children, 0)
        return cls.from_edges(edges)

    @classmethod
    def from_edges(cls, edges: Iterable[tuple[str, str]]) -> Taxonomy:
        """A taxonomy from (parent, child) pairs. Raises InputError for a cycle, a name that is given twice,
        or fewer than two leaves."""
        pairs = list(edges)
        children: dict[str, list[str]] = {}
        parents: dict[str, str] = {}
        for parent, child in pairs:
            for name in (parent, child):
                _check_name(name)
            if child in parents:
                raise _twice(child)
            parents[child] = parent
            children.setdefault(parent, []).append(child)
        roots = [name for name in children if name not in parents]
        if len(roots) != 1:
            problem = f"several roots {', '.join(roots)}" if roots else "a cycle, no root"
            raise InputError(f"taxonomy: {problem}; a tree has exactly one root")
        ordered: dict[str, str] = {}
        pending = [roots[0]]
        while pending:
            node = pending.pop()
            if node in parents:
                ordered[node] = parents[node]
            pending.extend(reversed(children.get(node, [])))
        if len(ordered) != len(parents):
            raise InputError(f"taxonomy: cycle among {sorted(set(parents) - set(ordered))}")
        if len(parents) - len([n for n in children if n in parents]) < 2:
            raise InputError("taxonomy: a tree needs at least two leaves")
        return cls(roots[0], ordered)

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        """Inner node -> its children, both in preorder."""
        children: dict[str, list[str]] = {name: [] for name in self.nodes}
        for child, parent in self.parent_of.items():
            children[parent].append(child)
        return {name: tuple(below) for name, below in children.items() if below}

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """All names in preorder, the root first."""
        return (self.root, *self.parent_of)

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """The E edges in preorder, named by their children. The column `logp:<child>` is log p(child |
        parent)."""
        return tuple(self.parent_of)

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """The L leaves in preorder."""
        return tuple(name for name in self.nodes if name not in self.children)

    @cached_property
    def place(self) -> dict[str, int]:
        """Node -> its index in `nodes`. The edge with index e in `edges` leads to the node with index e +
        1."""
        return {name: place for place, name in enumerate(self.nodes)}

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Inner node -> (K,) int64 indices of its children in `edges`: the columns of log p(child | node)."""
        return {
            name: np.array([self.place[child] - 1 for child in below])
            for name, below in self.children.items()
        }

    @cached_property
    def decisions(self) -> dict[str, tuple[str, ...]]:
        """Node with at least two children -> those children, in preorder."""
        return {name: below for name, below in self.children.items() if len(below) > 1}

    def path(self, leaf: str) -> tuple[str, ...]:
        """The edges from the root to a node, named by their children, so that the node is the last. Raises
        InputError for an unknown name."""
        if leaf not in self.parent_of:
            raise InputError(f"unknown label {leaf!r}; the taxonomy has {', '.join(self.leaves)}")
        steps = [leaf]
        while (parent := self.parent_of[steps[-1]]) != self.root:
            steps.append(parent)
        return tuple(reversed(steps))

    @cached_property
    def path_matrix(self) -> np.ndarray:
        """(L, E) bool: whether an edge is on the path of a leaf. log p(leaf) = path_matrix @ logp."""
        return np.array([[edge in self.path(leaf) for edge in self.edges] for leaf in self.leaves])

    @cached_property
    def leaves_below(self) -> np.ndarray:
        """(E, L) bool: whether a leaf is the child of an edge, or below it."""
        return self.path_matrix.T

    @cached_property
    def choices(self) -> np.ndarray:
        """(L, D) int64: index of the child on a leaf's path at each of the D decisions; -1 where the leaf is
        not below the decision."""
        table = np.full((len(self.leaves), len(self.decisions)), -1, dtype=np.int64)
        for row, leaf in enumerate(self.leaves):
            on_path = set(self.path(leaf))
            for column, below in enumerate(self.decisions.values()):
                for position, child in enumerate(below):
                    if child in on_path:
                        table[row, column] = position
        return table

    @cached_property
    def decision_levels(self) -> dict[str, int]:
        """Decision -> its level: 1 plus the number of decisions above it."""
        levels: dict[str, int] = {}
        for node in self.decisions:  # preorder: ancestors come first
            above = (
                []
                if node == self.root
                else [name for name in (self.root, *self.path(node)[:-1]) if name in levels]
            )
            levels[node] = 1 + len(above)
        return levels

    @cached_property
    def heights(self) -> dict[str, int]:
        """Node -> number of edges on the longest path down to a leaf; 0 for a leaf."""
        heights: dict[str, int] = {}
        for node in reversed(self.nodes):
            heights[node] = (
                1 + max(heights[child] for child in self.children[node]) if node in self.children else 0
            )
        return heights

    @cached_property
    def lca(self) -> tuple[tuple[str, ...], ...]:
        """L rows of L nodes: the lowest common ancestor of two leaves; the leaf itself on the diagonal."""
        paths = [(self.root, *self.path(leaf)) for leaf in self.leaves]
        return tuple(
            tuple([a for a, b in zip(one, other, strict=False) if a == b][-1] for other in paths)
            for one in paths
        )

    @cached_property
    def lca_heights(self) -> np.ndarray:
        """(L, L) int64: height of the lowest common ancestor of two leaves; 0 on the diagonal (Bertinetto et
        al. 2020)."""
        return np.array([[self.heights[node] for node in row] for row in self.lca], dtype=np.int64)

    @property
    def costs(self) -> np.ndarray:
        """(L, L) cost of a mistake: rows are true leaves, columns predicted ones. `lca_heights`, unless
        `with_costs` gave others."""
        return self.lca_heights if self.given_costs is None else self.given_costs

    def with_costs(self, costs: np.ndarray) -> Taxonomy:
        """The same tree with (L, L) costs of mistakes: non-negative, 0 on the diagonal. Raises ValueError for
        others."""
        costs = np.asarray(costs, dtype=np.float64)
        if costs.shape != self.lca_heights.shape or not (costs >= 0).all() or np.diagonal(costs).any():
            raise ValueError("costs are a square of the leaves, 0 or more, with 0 on the diagonal")
        return replace(self, given_costs=costs)

    @cached_property
    def cuts(self) -> tuple[tuple[str, ...], ...]:
        """The nodes of each depth, from depth 1, in preorder. A leaf also counts at all greater depths, so
        the last cut has all leaves."""
        paths = [self.path(leaf) for leaf in self.leaves]
        depths = range(max(map(len, paths)))
        return tuple(
            tuple(dict.fromkeys(path[min(depth, len(path) - 1)] for path in paths)) for depth in depths
        )

    @cached_property
    def cut_of_leaf(self) -> np.ndarray:
        """(depths, L) int64: index, in each of `cuts`, of the node that is the leaf or above it."""
        paths = [self.path(leaf) for leaf in self.leaves]
        rows = [
            [cut.index(path[min(depth, len(path) - 1)]) for path in paths]
            for depth, cut in enumerate(self.cuts)
        ]
        return np.array(rows, dtype=np.int64)

    def prune(self, leaves: Iterable[str]) -> Taxonomy:
        """The tree of these leaves and their ancestors. Raises InputError for an unknown leaf, or for fewer
        than two."""
        wanted = set(leaves)
        if unknown := sorted(wanted - set(self.leaves)):
            raise InputError(f"unknown leaf {unknown[0]!r}; the taxonomy has {', '.join(self.leaves)}")
        keep = {edge for leaf in wanted for edge in self.path(leaf)}
        if len(wanted) < 2:
            raise InputError(
                f"only the leaf {', '.join(wanted) or '(none)'} has images; a study needs at least two"
            )
        return Taxonomy.from_edges(
            (parent, child) for child, parent in self.parent_of.items() if child in keep
        )

    def nested(self) -> dict[str, Any]:
        """The nested mappings that `from_nested` reads, for JSON and YAML."""

        def below(name: str) -> dict[str, Any] | None:
            return {child: below(child) for child in self.children[name]} if name in self.children else None

        return {self.root: below(self.root)}


def _check_name(name: Any) -> None:
    """Raises InputError for a name that is not a non-empty text on one line."""
    if not isinstance(name, str) or not name.strip() or name != name.strip() or not name.isprintable():
        raise InputError(
            f"taxonomy: node name {name!r} must be a non-empty text on one line; put quotes around it"
        )


def _twice(name: str) -> InputError:
    return InputError(f"taxonomy: {name!r} is in the tree twice; every name may be used once")
