"""The figure of arms on different label trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leukotree.report import drawing
from leukotree.report.drawing import GREY, INK, Drawing, colour, drawn, grid, legend_above, styled


class Trees(NamedTuple):
    """The macro F1 (0 to 1) of the arms of one group, means over folds."""

    named: Mapping[str, float]
    """The trees that are not permuted."""
    permuted: Mapping[str, float]
    flat: float | None
    differences: Mapping[str, Mapping[str, Sequence[float]]]
    """Named tree -> permuted tree -> the differences of the folds, named minus permuted."""


@styled
def trees(groups: Mapping[str, Trees]) -> Drawing:
    """A row for each group. Left: a point for each permuted tree, a diamond for each other tree, a line for
    `flat`. Right: the differences of the folds against each permuted tree, with their mean."""
    most = max(len(group.permuted) for group in groups.values())
    figure, axes = grid(2 * len(groups), 2, max(3.2, 0.3 * most), 2.6)
    for row, (name, group) in enumerate(groups.items()):
        left, right = axes[2 * row], axes[2 * row + 1]
        places = range(len(group.permuted))
        points = [100 * score for score in group.permuted.values()]
        left.plot(places, points, "o", ms=5, color=GREY, mec=INK, mew=0.6, label="permuted")
        for index, (tree, score) in enumerate(group.named.items()):
            left.plot(-1, 100 * score, "D", ms=7, color=colour(index), label=tree)
        if group.flat is not None:
            left.axhline(100 * group.flat, color=INK, lw=1, ls="--", label="flat")
        left.set_xticks([])
        left.set_ylabel("macro F1, %")
        drawing.set_title(left, name)
        right.axvline(0, color=INK, lw=0.8)
        for index, of_permuted in enumerate(group.differences.values()):
            for place, values in enumerate(of_permuted.values()):
                shown = [100 * value for value in values]
                right.plot(shown, [place] * len(shown), "o", ms=3.5, color=colour(index), alpha=0.45)
                right.plot(sum(shown) / len(shown), place, "|", ms=12, mew=2, color=colour(index))
        right.set_yticks(places, list(group.permuted))
        right.set_ylim(len(group.permuted) - 0.5, -0.5)
        right.set_xlabel("difference of a fold, percentage points")
    legend_above(figure, axes[0])
    return drawn(figure)
