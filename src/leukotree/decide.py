"""From log p(child | parent) on every edge to one leaf."""

from __future__ import annotations

import numpy as np

from leukotree.taxonomy import Taxonomy


def greedy(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Top-down: at each node take the most probable child, until a leaf. Ties go to the first child in preorder.

    logp: (N, E) log p(child | parent), columns in the order of `taxonomy.edges`; only comparisons among siblings count.
    Returns (N,) int64 indices into `taxonomy.leaves`. Raises ValueError for another shape.
    """
    logp = _edges(logp, taxonomy)
    position = {name: index for index, name in enumerate(taxonomy.nodes)}  # edge e is node e + 1: the root has no edge
    step = np.repeat(np.arange(len(position))[:, None], len(logp), axis=1)  # leaves stay where they are
    for parent, children in taxonomy.children.items():
        siblings = np.array([position[child] for child in children])
        step[position[parent]] = siblings[logp[:, siblings - 1].argmax(axis=1)]
    rows = np.arange(len(logp))
    at = np.zeros(len(logp), dtype=np.int64)
    for _ in range(max(len(taxonomy.path(leaf)) for leaf in taxonomy.leaves)):
        at = step[at, rows]
    leaf_of = np.full(len(position), -1, dtype=np.int64)
    leaf_of[[position[leaf] for leaf in taxonomy.leaves]] = np.arange(len(taxonomy.leaves))
    return leaf_of[at]


def leaf_logp(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, E) log p(child | parent) -> (N, L) float64 log p(leaf): the sum along each leaf's path. -inf is allowed."""
    logp = _edges(logp, taxonomy).astype(np.float64)
    # Sums of picked columns, not a matrix product: 0 x -inf would be NaN.
    return np.stack([logp[:, on_path].sum(axis=1) for on_path in taxonomy.path_matrix], axis=1)


def _edges(logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    logp = np.asarray(logp)
    if logp.ndim != 2 or logp.shape[1] != len(taxonomy.edges):
        raise ValueError(f"logp has shape {logp.shape}; expected (N, {len(taxonomy.edges)}), one column per edge")
    return logp
