"""Random log-probabilities on the edges of a tree."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from leukotree.taxonomy import Taxonomy
from tests.helpers.trees import trees


def normalised(logits: np.ndarray, tree: Taxonomy) -> np.ndarray:
    """(N, E) logits -> log p(child | parent), normalised among siblings."""
    logp = np.array(logits, dtype=float)
    for children in tree.children.values():
        columns = [tree.edges.index(child) for child in children]
        logp[:, columns] -= np.logaddexp.reduce(logp[:, columns], axis=1, keepdims=True)
    return logp


def drawn(tree: Taxonomy, n: int, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """(n,) random true leaves and (n, E) random log p(child | parent) that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, len(tree.leaves), n), normalised(
        rng.normal(scale=scale, size=(n, len(tree.edges))), tree
    )


@st.composite
def cases(draw: st.DrawFn, most: int = 12) -> tuple[Taxonomy, np.ndarray, np.ndarray]:
    """A random ragged tree, up to `most` true leaves, and as many log-probabilities."""
    tree = draw(trees())
    return tree, *drawn(tree, draw(st.integers(1, most)), draw(st.integers(0, 10_000)))


@st.composite
def tied_cases(draw: st.DrawFn) -> tuple[Taxonomy, np.ndarray]:
    """A random ragged tree and up to 6 rows of few values, not normalised, whose sums are exact: ties are
    common."""
    tree = draw(trees(edges=12))
    row = st.lists(
        st.sampled_from([-4.0, -1.5, -0.25, 0.0]), min_size=len(tree.edges), max_size=len(tree.edges)
    )
    rows = draw(st.lists(row, max_size=6))
    return tree, np.array(rows, dtype=np.float32).reshape(len(rows), len(tree.edges))
