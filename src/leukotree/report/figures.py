"""Figures of results: confusion matrices, differences with intervals, abstention, reliability,
net benefit, coverage, interference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from leukotree.report import drawing
from leukotree.report.drawing import (
    COLOURS,
    GREY,
    INK,
    Drawing,
    colour,
    drawn,
    grid,
    legend_above,
    marker,
    shortened,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE = (0.0, 0.447, 0.698)
"""The first of COLOURS, as shares of red, green and blue."""
ALL_POSITIVE = "all positive"
"""The curve of net benefit of calling all cases positive."""


class Bar(NamedTuple):
    """A difference with its own interval, for `forest`. With NaN bounds only the point is drawn."""

    name: str
    kind: str
    """The kind of the estimate. Each kind has a colour and an entry in the legend."""
    estimate: float
    low: float
    high: float


@styled
def confusions(counts: Mapping[str, np.ndarray], leaves: Sequence[str]) -> Drawing:
    """One panel per arm, from (L, L) counts: the colour is the share of the row, the text is share and
    count."""
    from matplotlib.patches import Rectangle

    side = max(2.4, 0.5 * len(leaves) + 0.9)
    figure, axes = grid(len(counts), min(3, len(counts)), side, side + 0.25)
    for column, (axis, (name, table)) in enumerate(zip(axes, counts.items(), strict=True)):
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axis.set_aspect("equal")
        axis.set_xlim(-0.5, len(leaves) - 0.5)
        axis.set_ylim(len(leaves) - 0.5, -0.5)
        for row, col in np.ndindex(*table.shape):
            # Squares that are more or less transparent are legible on white and on black.
            axis.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, fc=(*BLUE, float(share[row, col])), lw=0))
            label = f"{100 * share[row, col]:.0f} %\n{table[row, col]}" if table[row, col] else "0"
            faint = GREY if not table[row, col] else INK
            ink = "white" if share[row, col] > 0.5 else faint
            axis.text(col, row, label, ha="center", va="center", fontsize=6.5, color=ink)
        axis.set_xticks(range(len(leaves)), leaves, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(leaves)), leaves if column % 3 == 0 else [""] * len(leaves))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        drawing.set_title(axis, name)
        axis.set_xlabel("predicted")
    axes[0].set_ylabel("true")
    return drawn(figure)


@styled
def forest(bars: Sequence[Bar], rope: float, label: str, width: float = 6.2) -> Drawing:
    """A row per comparison with its intervals, in percentage points. The grey band is the region of practical
    equivalence. `width`: of the figure in inches."""
    names = list(dict.fromkeys(bar.name for bar in bars))
    kinds = list(dict.fromkeys(bar.kind for bar in bars))
    figure, (axis,) = grid(1, 1, width, 1.1 + 0.22 * len(names) * (len(kinds) + 1))
    axis.axvspan(-100 * rope, 100 * rope, color=GREY, alpha=0.35, lw=0, zorder=0)
    axis.axvline(0, color=INK, lw=0.8, zorder=1)
    _draw_bars(axis, bars, names, kinds, 5, solid_capstyle="butt")
    axis.set_xlabel(label)
    legend_above(figure, axis)
    return drawn(figure)


def _draw_bars(
    axis: Axes, bars: Sequence[Bar], names: Sequence[str], kinds: Sequence[str], size: float, **line: Any
) -> None:
    """A row for each name from the top, and in it a point of this size with its interval for each kind, in
    per cent. `line`: the style of the intervals."""
    for index, kind in enumerate(kinds):
        axis.plot([], [], lw=2.2, color=colour(index), label=kind)
    for bar in bars:
        index = kinds.index(bar.kind)
        y = names.index(bar.name) + 0.7 * ((index + 0.5) / len(kinds) - 0.5)
        if np.isfinite(bar.low):
            ends = [100 * bar.low, 100 * bar.high]
            axis.plot(ends, [y, y], color=colour(index), lw=2.2, alpha=0.7, **line)
        axis.plot(100 * bar.estimate, y, marker=marker(index), ms=size, color=colour(index), lw=0)
    axis.set_yticks(range(len(names)), [shortened(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)


@styled
def reach(arms: Mapping[str, Sequence[float]], shortcuts: Mapping[str, float]) -> Drawing:
    """A row per arm with the scores (0 to 1) of its folds and their mean, then a row per shortcut with its
    score."""
    names = [*arms, *shortcuts]
    figure, (axis,) = grid(1, 1, 4.6, 0.7 + 0.24 * len(names))
    for row, folds in enumerate(arms.values()):
        shown = [100 * score for score in folds]
        axis.plot(shown, [row] * len(shown), marker(row), ms=4, mew=0, color=colour(row), alpha=0.5)
        axis.plot([sum(shown) / len(shown)], [row], "|", ms=14, mew=2.4, color=colour(row))
    for row, score in enumerate(shortcuts.values(), len(arms)):
        axis.plot([100 * score], [row], "d", ms=6, color=INK)
    axis.axhline(len(arms) - 0.5, color=GREY, lw=0.8)
    axis.set_yticks(range(len(names)), [shortened(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(0, 100)
    axis.set_xlabel("macro F1, %")
    return drawn(figure)


@styled
def abstention(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Drawing:
    """Two panels against coverage, in per cent: accuracy of the images that reach a leaf, and hierarchical
    precision of all images.

    curves: arm -> (coverage, accuracy, precision), each (T,) for T thresholds.
    """
    figure, axes = grid(2, 2, 3.2, 2.7, sharey=True)
    for index, (name, (coverage, *values)) in enumerate(curves.items()):
        for axis, value in zip(axes, values, strict=True):
            axis.plot(100 * coverage, 100 * value, color=colour(index), lw=1.8, label=name)
    for axis, title in zip(
        axes, ("accuracy of those that reach a leaf", "hierarchical precision of all"), strict=True
    ):
        axis.set_title(title)
        axis.set_xlabel("reach a leaf, %")
        axis.set_xlim(0, 100)
    axes[0].set_ylabel("%")
    legend_above(figure, axes[0])
    return drawn(figure)


@styled
def reliability(curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]) -> Drawing:
    """One panel per arm: accuracy against confidence in each bin, before and after scaling. The size of a dot
    is the share of the images.

    curves: arm -> "raw" or "scaled" -> (confidence, accuracy, images), each (B,) for B bins.
    """
    figure, axes = grid(len(curves), min(3, len(curves)), 2.9, 2.7, sharey=True)
    for axis, (name, states) in zip(axes, curves.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
        for index, (state, (confidence, accuracy, images)) in enumerate(states.items()):
            axis.plot(confidence, accuracy, color=COLOURS[index], lw=1.2, label=state)
            axis.scatter(
                confidence, accuracy, s=6 + 160 * images / images.sum(), color=COLOURS[index], alpha=0.7, lw=0
            )
        drawing.set_title(axis, name)
        axis.set_xlabel("confidence")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
    axes[0].set_ylabel("accuracy")
    legend_above(figure, max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[0])))
    return drawn(figure)


@styled
def net_benefit(threshold: np.ndarray, curves: Mapping[str, Mapping[str, np.ndarray]]) -> Drawing:
    """One panel per target: net benefit against the threshold probability.

    Args:
        threshold: (G,) probabilities.
        curves: target -> arm or ALL_POSITIVE -> (G,) net benefit.
    """
    figure, axes = grid(len(curves), min(4, len(curves)), 2.4, 2.0)
    for axis, (name, of_arms) in zip(axes, curves.items(), strict=True):
        axis.axhline(0, color=GREY, lw=0.8)
        for index, (arm, values) in enumerate(of_arms.items()):
            every = arm == ALL_POSITIVE
            axis.plot(
                100 * threshold,
                values,
                color=GREY if every else colour(index),
                lw=1.6,
                ls=":" if every else "-",
                label=arm,
            )
        highest = max(0.01, *(float(values.max()) for values in of_arms.values()))
        axis.set_ylim(-0.1 * highest, 1.05 * highest)
        drawing.set_title(axis, name)
        axis.set_xlabel("threshold, %")
    axes[0].set_ylabel("net benefit")
    legend_above(figure, axes[0])
    return drawn(figure)


@styled
def coverage(bars: Mapping[str, Sequence[Bar]], wanted: float) -> Drawing:
    """One panel per kind of sets: the coverage of each leaf with its interval, in per cent, in a colour per
    arm. The dotted line is the wanted coverage."""
    rows = list(dict.fromkeys(bar.name for of_kind in bars.values() for bar in of_kind))
    arms = list(dict.fromkeys(bar.kind for of_kind in bars.values() for bar in of_kind))
    figure, axes = grid(len(bars), len(bars), 3.6, 1.0 + 0.16 * len(rows) * (len(arms) + 1), sharey=True)
    for axis, (title, of_kind) in zip(axes, bars.items(), strict=True):
        axis.axvline(100 * wanted, color=INK, lw=0.8, ls=":")
        _draw_bars(axis, of_kind, rows, arms, 4)
        axis.set_title(title)
        axis.set_xlabel("coverage, %")
    legend_above(figure, axes[0])
    return drawn(figure)


@styled
def interference(probed: pd.DataFrame, along: str) -> Drawing:
    """One panel per arm: a line per pair of levels for the cosine, and a dashed line for its control.

    Args:
        probed: a row per arm, levels and value of the column `along`, in the order of `along`, with cosine
            and control.
        along: the column on the x axis, "epoch" or "block".
    """
    arms = probed["arm"].unique().tolist()
    places = probed[along].unique().tolist()
    figure, axes = grid(len(arms), min(3, len(arms)), 3.0, 2.4, sharey=True)
    for axis, arm in zip(axes, arms, strict=True):
        axis.axhline(0, color=GREY, lw=0.8)
        for index, (levels, rows) in enumerate(probed[probed["arm"] == arm].groupby("levels")):
            x = rows[along] if along == "epoch" else rows[along].map(places.index)
            shape = "o" if len(rows) == 1 else None
            axis.plot(
                x, rows["cosine"], marker=shape, ms=4, color=colour(index), lw=1.8, label=f"levels {levels}"
            )
            axis.plot(x, rows["control"], marker=shape, ms=3, color=colour(index), lw=1, ls="--", alpha=0.7)
        if along != "epoch":
            axis.set_xticks(
                range(len(places)), places, rotation=60, ha="right", rotation_mode="anchor", fontsize=7
            )
        drawing.set_title(axis, arm)
        axis.set_xlabel(along)
    axes[0].set_ylabel("cosine")
    legend_above(figure, axes[0])
    return drawn(figure)
