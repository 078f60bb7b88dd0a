"""Decision rules: from log p(child | parent) on every edge to a leaf, or to the node where one had better
stop.

All are functions of stored predictions. Two rules decide the same predictions differently, so models are
compared under one rule.

* `greedy`: top-down, at each node the most probable child (the paper's).
* `joint`: the leaf of the most probable path.
* `marginal`: bottom-up, the most probable node of each depth, P(node) being the sum of its leaves. The picks
  can contradict the tree (`contradictions`). The last of them, the leaf, is that of `joint`: the two differ
  only above the leaves (`per_depth`).
* `expected_cost`: the leaf that is least wrong on average, argmin_k sum_j p_j D_jk with the height of the
  lowest common ancestor as cost D (Karthik et al. 2021, "No cost likelihood manipulation at test time",
  ICLR).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

Rule = Literal["greedy", "joint", "marginal", "expected_cost"]
RULES: tuple[Rule, ...] = get_args(Rule)
"""How log-probabilities become a leaf. How the images of a patient become one prediction is another matter:
`metrics.RULES`."""


class Abstention(NamedTuple):
    """What stopping early buys, at T thresholds that ascend; (T,) each."""

    threshold: np.ndarray
    """Least P(node) that a descent goes on to."""
    coverage: np.ndarray
    """Share of the samples that reach a leaf; it never rises."""
    accuracy: np.ndarray
    """Of those that do; NaN where none does."""
    precision: np.ndarray
    """Micro hierarchical precision of all samples: share of the nodes entered, the root left out, that are on
    the true path. NaN where every sample stops at the root."""


class Mixed(NamedTuple):
    """The two most probable leaves of each sample, (N,) each. Groups that do not overlap leave little mass to
    the second."""

    first: np.ndarray
    second: np.ndarray
    mass: np.ndarray
    """P(first) + P(second)."""
    ratio: np.ndarray
    """P(second) / P(first), 0..1; 1 where both are as likely."""
    height: np.ndarray
    """Height of their lowest common ancestor: how far apart in the tree the two are."""


def leaves(logp: np.ndarray, taxonomy: Taxonomy, rule: Rule = "greedy") -> np.ndarray:
    """(N,) int64 indices into `taxonomy.leaves`, decided by `rule`. Ties go to the first in preorder.

    logp: (N, E) log p(child | parent), columns in the order of `taxonomy.edges`. Raises ValueError for
    another shape, InputError for an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"decision rule {rule!r}: use one of {', '.join(RULES)}")
    by_rule = {"greedy": greedy, "joint": joint, "marginal": joint, "expected_cost": expected_cost}
    return by_rule[rule](logp, taxonomy)


def per_depth(logp: np.ndarray, taxonomy: Taxonomy, rule: Rule = "greedy") -> np.ndarray:
    """(N, depths) int64: the node decided at each depth, as its place in each of `taxonomy.cuts`.

    Those of the leaf's path, except under `marginal`, where each depth decides for itself.
    """
    return (
        marginals(logp, taxonomy)
        if rule == "marginal"
        else taxonomy.cut_of_leaf.T[leaves(logp, taxonomy, rule)]
    )


def greedy(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Top-down: at each node take the most probable child, until a leaf. Only comparisons among siblings
    count."""
    logp = _edges(logp, taxonomy)
    step = np.repeat(np.arange(len(taxonomy.nodes))[:, None], len(logp), axis=1)  # leaves stay where they are
    for parent, columns in taxonomy.columns.items():
        step[taxonomy.place[parent]] = (
            columns[logp[:, columns].argmax(axis=1)] + 1
        )  # edge e leads to node e + 1
    rows = np.arange(len(logp))
    at = np.zeros(len(logp), dtype=np.int64)
    for _ in taxonomy.cuts:
        at = step[at, rows]
    leaf_of = np.full(len(taxonomy.nodes), -1, dtype=np.int64)
    leaf_of[_places(taxonomy.leaves, taxonomy)] = np.arange(len(taxonomy.leaves))
    return leaf_of[at]


def joint(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """The leaf of the most probable path."""
    return leaf_logp(logp, taxonomy).argmax(axis=1)


def expected_cost(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """The leaf k of least sum_j p_j D_jk, D being `taxonomy.lca_heights` (Karthik et al. 2021)."""
    return (np.exp(leaf_logp(logp, taxonomy)) @ taxonomy.lca_heights).argmin(axis=1)


def marginals(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, depths) int64: the most probable node of each depth, as its place in each of `taxonomy.cuts`."""
    logs = node_logp(logp, taxonomy)
    return np.stack([logs[:, _places(cut, taxonomy)].argmax(axis=1) for cut in taxonomy.cuts], axis=1)


def contradictions(logp: np.ndarray, taxonomy: Taxonomy) -> float:
    """Share of the samples whose `marginals` do not lie on one path from the root; NaN without samples."""
    picks = marginals(logp, taxonomy)
    apart = (picks != taxonomy.cut_of_leaf.T[picks[:, -1]]).any(axis=1)
    return float(apart.mean()) if len(apart) else float("nan")


def stop(logp: np.ndarray, taxonomy: Taxonomy, threshold: float) -> np.ndarray:
    """Greedy descent that goes on only to nodes of P(node) >= threshold: (N,) int64 indices into
    `taxonomy.nodes`.

    0 is the root. With threshold 0 all end at the greedy leaf. Raises InputError for a threshold outside
    0..1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold {threshold}: a probability lies in 0..1")
    way, probability = _descent(logp, taxonomy)
    last = (probability >= threshold).sum(axis=1) - 1
    return way[np.arange(len(way)), last]


def abstention(
    true: np.ndarray,
    logp: np.ndarray,
    taxonomy: Taxonomy,
    thresholds: Sequence[float] | np.ndarray | None = None,
) -> Abstention:
    """The curve of `stop` over thresholds; without any given, over 0, 1 and every value where the coverage
    changes.

    true: (N,) leaf indices. With thresholds that are given, curves of several folds have the same points.
    """
    way, probability = _descent(logp, taxonomy)
    right = way == _ways(taxonomy)[np.asarray(true, dtype=np.int64)]
    entered = way[:, 1:] != way[:, :-1]  # a leaf above the deepest stands for itself below, and counts once
    at = np.unique(
        np.concatenate([[0.0, 1.0], probability[:, -1]])
        if thresholds is None
        else np.asarray(thresholds, float)
    )
    covered, covered_right = _at_least(probability[:, -1], at), _at_least(probability[right[:, -1], -1], at)
    nodes, nodes_right = (
        _at_least(probability[:, 1:][mask], at) for mask in (entered, entered & right[:, 1:])
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return Abstention(at, covered / np.float64(len(way)), covered_right / covered, nodes_right / nodes)


def mixed(logp: np.ndarray, taxonomy: Taxonomy) -> Mixed:
    """The two most probable leaves, for cells that mutually exclusive groups cannot hold. Ties go to the
    first in preorder."""
    logs = leaf_logp(logp, taxonomy)
    first, second = np.argsort(-logs, axis=1, kind="stable")[:, :2].T
    rows = np.arange(len(logs))
    p_first, p_second = np.exp(logs[rows, first]), np.exp(logs[rows, second])
    return Mixed(first, second, p_first + p_second, p_second / p_first, taxonomy.lca_heights[first, second])


def node_logp(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, E) log p(child | parent) -> (N, E + 1) float64 log P(node), in the order of `taxonomy.nodes`. -inf
    is allowed."""
    logp = _edges(logp, taxonomy).astype(np.float64)
    logs = np.zeros((len(logp), len(taxonomy.nodes)))
    # Sums down the tree, not a matrix product: 0 x -inf would be NaN.
    for parent, columns in taxonomy.columns.items():
        logs[:, columns + 1] = logs[:, taxonomy.place[parent], None] + logp[:, columns]
    return logs


def leaf_logp(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, E) log p(child | parent) -> (N, L) float64 log p(leaf): the sum along each leaf's path. -inf is
    allowed."""
    return node_logp(logp, taxonomy)[:, _places(taxonomy.leaves, taxonomy)]


def edge_logp(leaf_logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, L) log p(leaf), up to a constant per row -> (N, E) float64 log p(child | parent); 0 below a node
    without mass."""
    mass = np.stack(
        [np.logaddexp.reduce(leaf_logp[:, below], axis=1) for below in taxonomy.leaves_below], axis=1
    )
    mass = np.column_stack([np.logaddexp.reduce(leaf_logp, axis=1), mass])  # (N, nodes)
    parents = mass[:, _places(taxonomy.parent_of.values(), taxonomy)]
    return np.subtract(mass[:, 1:], parents, out=np.zeros_like(parents), where=parents > -np.inf)


def at_decisions(
    true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """For each decision, of the n samples whose true leaf lies below it: name, (n,) true child, (n, K) log
    p(child | parent)."""
    logp = _edges(logp, taxonomy)
    wanted = taxonomy.choices[np.asarray(true, dtype=np.int64)]  # (N, D)
    for column, node in enumerate(taxonomy.decisions):
        defined = wanted[:, column] >= 0
        yield node, wanted[defined, column], logp[defined][:, taxonomy.columns[node]].astype(np.float64)


def _places(names: Iterable[str], taxonomy: Taxonomy) -> list[int]:
    return [taxonomy.place[name] for name in names]


def _ways(taxonomy: Taxonomy) -> np.ndarray:
    """(L, depths + 1) nodes from the root to each leaf; one above the deepest is repeated."""
    below = [
        np.array(_places(cut, taxonomy))[row]
        for cut, row in zip(taxonomy.cuts, taxonomy.cut_of_leaf, strict=True)
    ]
    return np.stack([np.zeros(len(taxonomy.leaves), dtype=np.int64), *below], axis=1)


def _descent(logp: np.ndarray, taxonomy: Taxonomy) -> tuple[np.ndarray, np.ndarray]:
    """The greedy way of each sample, (N, depths + 1) nodes from the root, and P of each of them, which never
    rises."""
    way = _ways(taxonomy)[greedy(logp, taxonomy)]
    probability = np.exp(np.take_along_axis(node_logp(logp, taxonomy), way, axis=1))
    return way, np.minimum.accumulate(probability, axis=1)  # a log p of float32 may be a rounding above 0


def _at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) how many values reach each threshold."""
    return len(values) - np.searchsorted(np.sort(values), thresholds)


def _edges(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    logp = np.asarray(logp)
    if logp.ndim != 2 or logp.shape[1] != len(taxonomy.edges):
        raise ValueError(
            f"logp has shape {logp.shape}; expected (N, {len(taxonomy.edges)}), one column per edge"
        )
    return logp
