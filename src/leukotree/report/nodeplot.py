"""The figure of the label tree: how many images belong to each node, and how many of them each arm finds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from leukotree.report.drawing import GREY, INK, Drawing, colour, drawn, grid, styled
from leukotree.taxonomy import Taxonomy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _LETTER = 0.52, 0.068
"""Height of a leaf, and width of a letter, in inches."""
_WIDEST = 14.0
"""Width in points of the line to a node that all images belong to."""
MOST_LETTERS = 18


@styled
def tree(
    taxonomy: Taxonomy, images: Mapping[str, float], shares: Mapping[str, Mapping[str, float]]
) -> Drawing:
    """The tree from left to right. A line is as wide as the share of the images below it. Below a node's
    name: for each arm the share of these images that it decides below the node, in per cent.

    Args:
        images: node -> number of images whose true leaf is the node or below it.
        shares: arm -> node -> share (0 to 1), NaN without images.
    """
    places = _places(taxonomy)
    deepest = max(x for x, _ in places.values())
    arms = list(shares)
    longest = max(MOST_LETTERS, 5 * len(arms) + 2)
    step = longest * _LETTER + 0.55
    width = step * (deepest + 1)
    height = _ROW * len(taxonomy.leaves) + 0.35 + 0.2 * (1 + len(arms) // 4)
    figure, (axis,) = grid(1, 1, max(width, 3.5), height)
    axis.axis("off")
    axis.set_xlim(-0.1, max(width, 3.5))
    axis.set_ylim(len(taxonomy.leaves) - 0.45, -0.75)
    for child, parent in taxonomy.parent_of.items():
        (x0, y0), (x1, y1) = places[parent], places[child]
        below = images[child] / max(images[taxonomy.root], 1)
        beside = max(1.1 * len(_title(parent, images)), 5 * len(arms)) * _LETTER
        ends = (step * x0 + beside + 0.06, y0), (step * x1 - 0.06, y1)
        _edge(axis, *ends, below)
    for node, (x, y) in places.items():
        _node(axis, step * x, y, _title(node, images), [shares[arm][node] for arm in arms])
    for number, arm in enumerate(arms):
        axis.plot([], [], "s", ms=6, color=colour(number), label=_short(arm, 28))
    figure.legend(loc="outside upper left", ncols=min(len(arms), 4), handletextpad=0.2)
    return drawn(figure)


def _places(taxonomy: Taxonomy) -> dict[str, tuple[int, float]]:
    """Node -> its depth, and its row: leaves in preorder, a node in the middle of what is below it."""
    depth = {taxonomy.root: 0}
    for node in taxonomy.nodes:  # preorder: parents come first
        if node != taxonomy.root:
            depth[node] = depth[taxonomy.parent_of[node]] + 1
    rows: dict[str, float] = {leaf: float(row) for row, leaf in enumerate(taxonomy.leaves)}
    for node in reversed(taxonomy.nodes):
        if node not in rows:
            below = [rows[child] for child in taxonomy.children[node]]
            rows[node] = (min(below) + max(below)) / 2
    return {node: (depth[node], rows[node]) for node in taxonomy.nodes}


def _edge(axis: Axes, start: tuple[float, float], end: tuple[float, float], share: float) -> None:
    """A curve from a parent to a child."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    middle = (start[0] + end[0]) / 2
    curve = Path([start, (middle, start[1]), (middle, end[1]), end], [Path.MOVETO, *[Path.CURVE4] * 3])
    look = {"fc": "none", "ec": GREY, "lw": 0.8 + _WIDEST * share, "alpha": 0.6, "capstyle": "butt"}
    axis.add_patch(PathPatch(curve, **look))


def _node(axis: Axes, x: float, y: float, title: str, shares: Sequence[float]) -> None:
    axis.text(x, y - 0.06, title, ha="left", va="bottom", fontsize=8.5, color=INK, fontweight="bold")
    for number, share in enumerate(shares):
        said = "–" if np.isnan(share) else f"{100 * share:.0f}"
        place = x + number * 5 * _LETTER
        axis.text(place, y + 0.04, said, ha="left", va="top", fontsize=9, color=colour(number))


def _title(node: str, images: Mapping[str, float]) -> str:
    return f"{_short(node)}  {images[node]:.0f}"


def _short(name: str, most: int = MOST_LETTERS - 6) -> str:
    return textwrap.shorten(name, most, placeholder="…") if " " in name else name[:most]
