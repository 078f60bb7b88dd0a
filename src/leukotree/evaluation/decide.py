"""Decision rules: from log p(child | parent) of every edge to a leaf, or to the node at which to stop.

All are functions of stored predictions. Rules decide differently on the same predictions, so models are
compared under one rule.

* `greedy`: top-down, the most probable child at each node. The rule of the paper.
* `joint`: the leaf of the most probable path.
* `marginal`: bottom-up, the most probable node at each depth, where P(node) is the sum of its leaves. These
  nodes may not be on one path (`contradictions`). The last one, the leaf, is that of `joint`: the two rules
  differ only above the leaves (`per_depth`).
* `expected_cost`: the leaf with the smallest expected cost, argmin_k sum_j p_j D_jk. The cost D is the height
  of the lowest common ancestor (Karthik et al. 2021, "No cost likelihood manipulation at test time", ICLR),
  or what the study gives (`evaluation.costs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

Rule: TypeAlias = str
"""A key of `RULES`."""


class DecisionRule(NamedTuple):
    """A rule that decides a leaf for each sample."""

    leaves: Callable[[np.ndarray, Taxonomy], np.ndarray]
    """(N, E) log p(child | parent) -> (N,) leaf indices."""
    words: str
    """For the report: "decided by one rule, WORDS log p(child given parent)"."""


class Abstention(NamedTuple):
    """The effect of stopping above the leaves, at T ascending thresholds. All arrays are (T,)."""

    threshold: np.ndarray
    """Smallest P(node) with which a descent enters a node."""
    coverage: np.ndarray
    """Share of samples that reach a leaf. It decreases with the threshold."""
    accuracy: np.ndarray
    """Accuracy of the samples that reach a leaf; NaN where none does."""
    precision: np.ndarray
    """Micro hierarchical precision of all samples: share of the entered nodes, without the root, that are on
    the true path. NaN where every sample stops at the root."""


class Mixed(NamedTuple):
    """The two most probable leaves of each sample. All arrays are (N,). If the classes do not overlap, the
    second leaf has little probability."""

    first: np.ndarray
    second: np.ndarray
    mass: np.ndarray
    """P(first) + P(second)."""
    ratio: np.ndarray
    """P(second) / P(first), 0..1."""
    height: np.ndarray
    """Height of their lowest common ancestor: their distance in the tree."""


def leaves(logp: np.ndarray, taxonomy: Taxonomy, rule: Rule = "greedy") -> np.ndarray:
    """(N,) int64 leaf indices, decided by `rule`. Of equal leaves the first in preorder wins.

    Args:
        logp: (N, E) log p(child | parent), columns in the order of `taxonomy.edges`.

    Raises ValueError for another shape, InputError for an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"decision rule {rule!r}: use one of {', '.join(RULES)}")
    return RULES[rule].leaves(logp, taxonomy)


def per_depth(
    logp: np.ndarray, taxonomy: Taxonomy, rule: Rule = "greedy", decided: np.ndarray | None = None
) -> np.ndarray:
    """(N, depths) int64: index in `taxonomy.cuts` of the node that is decided at each depth.

    These are the nodes of the leaf's path. Under `marginal` each depth is decided on its own. `decided`: (N,)
    leaf indices that the rule has decided on another tree; None to decide them here.
    """
    if rule == "marginal":
        return marginals(logp, taxonomy)
    return taxonomy.cut_of_leaf.T[leaves(logp, taxonomy, rule) if decided is None else decided]


def greedy(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N,) int64 leaf indices: the most probable child at each node, from the root down to a leaf."""
    logp = _edges(logp, taxonomy)
    step = np.repeat(
        np.arange(len(taxonomy.nodes))[:, None], len(logp), axis=1
    )  # the step from a leaf is the leaf
    for parent, columns in taxonomy.columns.items():
        # Edge e leads to node e + 1.
        step[taxonomy.place[parent]] = columns[logp[:, columns].argmax(axis=1)] + 1
    rows = np.arange(len(logp))
    at = np.zeros(len(logp), dtype=np.int64)
    for _ in taxonomy.cuts:
        at = step[at, rows]
    leaf_of = np.full(len(taxonomy.nodes), -1, dtype=np.int64)
    leaf_of[_places(taxonomy.leaves, taxonomy)] = np.arange(len(taxonomy.leaves))
    return leaf_of[at]


def joint(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N,) int64 leaf indices: the leaf of the most probable path."""
    return leaf_logp(logp, taxonomy).argmax(axis=1)


def expected_cost(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N,) int64 leaf indices: argmin_k sum_j p_j D_jk with D = `taxonomy.costs`, by default the LCA heights
    (Karthik et al. 2021)."""
    return (np.exp(leaf_logp(logp, taxonomy)) @ taxonomy.costs).argmin(axis=1)


def marginals(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, depths) int64: index in `taxonomy.cuts` of the most probable node at each depth."""
    logs = node_logp(logp, taxonomy)
    return np.stack([logs[:, _places(cut, taxonomy)].argmax(axis=1) for cut in taxonomy.cuts], axis=1)


def contradictions(logp: np.ndarray, taxonomy: Taxonomy) -> float:
    """Share of samples whose `marginals` are not on one path from the root; NaN without samples."""
    picks = marginals(logp, taxonomy)
    apart = (picks != taxonomy.cut_of_leaf.T[picks[:, -1]]).any(axis=1)
    return float(apart.mean()) if len(apart) else float("nan")


def stop(
    logp: np.ndarray, taxonomy: Taxonomy, threshold: float, decided: np.ndarray | None = None
) -> np.ndarray:
    """(N,) int64 node indices: the end of a descent that enters only nodes with P(node) >= threshold.

    Index 0 is the root. With threshold 0 the end is the decided leaf. Raises InputError for a threshold
    outside 0..1.

    Args: decided: (N,) leaf indices to which the descents lead; None for the greedy ones.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold {threshold}: a probability is in 0..1")
    decided = greedy(logp, taxonomy) if decided is None else decided
    path, probability = path_to(decided, logp, taxonomy)
    last = (probability >= threshold).sum(axis=1) - 1
    return path[np.arange(len(path)), last]


def abstention(
    true: np.ndarray,
    logp: np.ndarray,
    taxonomy: Taxonomy,
    thresholds: Sequence[float] | np.ndarray | None = None,
) -> Abstention:
    """The scores of `stop` at thresholds.

    Args:
        true: (N,) leaf indices.
        logp: (N, E) log p(child | parent).
        thresholds: None for 0, 1 and all values at which the coverage changes. Give them to have the same
            points for several folds.
    """
    path, probability = path_to(greedy(logp, taxonomy), logp, taxonomy)
    correct = path == _paths(taxonomy)[np.asarray(true, dtype=np.int64)]
    entered = path[:, 1:] != path[:, :-1]  # a leaf is repeated at all greater depths, and counts once
    at = np.unique(
        np.concatenate([[0.0, 1.0], probability[:, -1]])
        if thresholds is None
        else np.asarray(thresholds, float)
    )
    at_leaf = probability[:, -1]
    covered, covered_correct = _at_least(at_leaf, at), _at_least(at_leaf[correct[:, -1]], at)
    nodes, nodes_correct = (
        _at_least(probability[:, 1:][mask], at) for mask in (entered, entered & correct[:, 1:])
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        coverage = covered / np.float64(len(path))
        return Abstention(at, coverage, covered_correct / covered, nodes_correct / nodes)


def path_to(decided: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy) -> tuple[np.ndarray, np.ndarray]:
    """(N, depths + 1) nodes from the root to each decided leaf, which is repeated at all greater depths, and
    their probabilities, which never rise. decided: (N,) leaf indices. logp: (N, E)."""
    path = _paths(taxonomy)[decided]
    probability = np.exp(np.take_along_axis(node_logp(logp, taxonomy), path, axis=1))
    # By rounding, a log p of float32 may be above 0, so that P would rise.
    return path, np.minimum.accumulate(probability, axis=1)


def mixed(logp: np.ndarray, taxonomy: Taxonomy) -> Mixed:
    """The two most probable leaves of each sample, for cells that may belong to two classes. Of equal leaves
    the first in preorder wins."""
    logs = leaf_logp(logp, taxonomy)
    first, second = np.argsort(-logs, axis=1, kind="stable")[:, :2].T
    rows = np.arange(len(logs))
    p_first, p_second = np.exp(logs[rows, first]), np.exp(logs[rows, second])
    return Mixed(first, second, p_first + p_second, p_second / p_first, taxonomy.lca_heights[first, second])


def node_logp(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, E + 1) float64 log P(node), in the order of `taxonomy.nodes`, from (N, E) log p(child | parent).
    -inf is allowed."""
    logp = _edges(logp, taxonomy).astype(np.float64)
    logs = np.zeros((len(logp), len(taxonomy.nodes)))
    # Sums down the tree, not a matrix product: 0 x -inf would be NaN.
    for parent, columns in taxonomy.columns.items():
        logs[:, columns + 1] = logs[:, taxonomy.place[parent], None] + logp[:, columns]
    return logs


def leaf_logp(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, L) float64 log p(leaf), the sum along each leaf's path, from (N, E) log p(child | parent). -inf is
    allowed."""
    return node_logp(logp, taxonomy)[:, _places(taxonomy.leaves, taxonomy)]


def edge_logp(leaf_logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, E) float64 log p(child | parent), from (N, L) log p(leaf) up to a constant per row. 0 below a node
    with probability 0."""
    sums = [np.logaddexp.reduce(leaf_logp[:, below], axis=1) for below in taxonomy.leaves_below]
    logs = np.column_stack([np.logaddexp.reduce(leaf_logp, axis=1), *sums])  # (N, nodes)
    parents = logs[:, _places(taxonomy.parent_of.values(), taxonomy)]
    return np.subtract(logs[:, 1:], parents, out=np.zeros_like(parents), where=parents > -np.inf)


def on_tree(logp: np.ndarray, taxonomy: Taxonomy, other: Taxonomy) -> np.ndarray:
    """(N, E') float64 log p(child | parent) on the edges of another tree, with the same leaf probabilities.

    Args:
        logp: (N, E) log p(child | parent) on `taxonomy`.
        other: a tree over the same leaves, in any order. Raises ValueError for other leaves.
    """
    return edge_logp(leaf_logp(logp, taxonomy)[:, leaf_places(other, taxonomy)], other)


def leaf_places(taxonomy: Taxonomy, other: Taxonomy) -> np.ndarray:
    """(L,) int64: the index in `other.leaves` of each leaf of `taxonomy`. Raises ValueError for other
    leaves."""
    if sorted(taxonomy.leaves) != sorted(other.leaves):
        raise ValueError(f"other leaves: {', '.join(taxonomy.leaves)} and {', '.join(other.leaves)}")
    place = {leaf: index for index, leaf in enumerate(other.leaves)}
    return np.array([place[leaf] for leaf in taxonomy.leaves], dtype=np.int64)


def at_decisions(
    true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(decision, (n,) index of the true child, (n, K) log p(child | decision)) for each decision, over the n
    samples whose true leaf is below it."""
    logp = _edges(logp, taxonomy)
    children = taxonomy.choices[np.asarray(true, dtype=np.int64)]  # (N, D)
    for column, decision in enumerate(taxonomy.decisions):
        defined = children[:, column] >= 0
        logs = logp[defined][:, taxonomy.columns[decision]].astype(np.float64)
        yield decision, children[defined, column], logs


def _places(names: Iterable[str], taxonomy: Taxonomy) -> list[int]:
    return [taxonomy.place[name] for name in names]


def _paths(taxonomy: Taxonomy) -> np.ndarray:
    """(L, depths + 1) nodes from the root to each leaf. A leaf is repeated at all greater depths."""
    below = [
        np.array(_places(cut, taxonomy))[row]
        for cut, row in zip(taxonomy.cuts, taxonomy.cut_of_leaf, strict=True)
    ]
    return np.stack([np.zeros(len(taxonomy.leaves), dtype=np.int64), *below], axis=1)


def _at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) number of values that are at least each threshold."""
    return len(values) - np.searchsorted(np.sort(values), thresholds)


def _edges(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """`logp` as an array. Raises ValueError unless it is (N, E)."""
    logp = np.asarray(logp)
    if logp.ndim != 2 or logp.shape[1] != len(taxonomy.edges):
        raise ValueError(
            f"logp has shape {logp.shape}; expected (N, {len(taxonomy.edges)}), one column per edge"
        )
    return logp


RULES: dict[Rule, DecisionRule] = {
    "greedy": DecisionRule(greedy, "greedily top-down over"),
    "joint": DecisionRule(joint, "the most probable path under"),
    "marginal": DecisionRule(joint, "the most probable node of each depth under"),
    "expected_cost": DecisionRule(expected_cost, "the least expected cost under"),
}
"""Rules from log-probabilities to a leaf. `metrics.RULES` are those from a patient's images to one
prediction."""
