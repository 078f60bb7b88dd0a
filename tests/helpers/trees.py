"""Random label trees."""

from __future__ import annotations

from hypothesis import strategies as st

from leukotree.taxonomy import Taxonomy


@st.composite
def trees(draw: st.DrawFn, edges: int = 25) -> Taxonomy:
    """Random ragged trees of 2 to `edges` edges: node i > 0 hangs below an earlier node; nodes with one child
    occur."""
    parents = [draw(st.integers(0, i)) for i in range(draw(st.integers(2, edges)))]
    pairs = [(f"n{parent}", f"n{child + 1}") for child, parent in enumerate(parents)]
    if len({child for _, child in pairs} - {parent for parent, _ in pairs}) < 2:
        pairs.append(("n0", "extra"))
    return Taxonomy.from_edges(pairs)
