"""Figures of the searches: learning curves, best score against cost, score against each key, maps of two
keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from leukotree.report import drawing, draws, space
from leukotree.report.blocks import number
from leukotree.report.drawing import (
    GREY,
    INK,
    Drawing,
    colour,
    drawn,
    grid,
    integer_ticks,
    legend_above,
    marker,
    styled,
)
from leukotree.report.space import Domain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from leukotree.stats.optimum import Optimum

BINS = 5
"""The number of bins of a range, for the means of a marginal."""
Trials = Mapping[str, Sequence[pd.DataFrame]]
"""Variant -> the trials of each of its searches."""


@styled
def learning_curves(histories: Mapping[str, Sequence[tuple[pd.DataFrame, str]]], reports: str) -> Drawing:
    """One panel per variant: macro F1 over the reports, a grey line per trial. The chosen trial of each
    search is coloured.

    Args:
        histories: variant -> (history, chosen trial) of each search.
        reports: the label of the x axis, "epoch" or "inner folds".
    """
    figure, axes = grid(len(histories), min(3, len(histories)), 3.4, 2.6, sharey=True)
    for index, (axis, (variant, searches)) in enumerate(zip(axes, histories.items(), strict=True)):
        for history, chosen in searches:
            for trial, curve in history.sort_values("epoch").groupby("trial"):
                picked = trial == chosen
                stroke, width, order = (colour(index), 2, 3) if picked else (GREY, 0.7, 2)
                dot = "o" if len(curve) == 1 else None  # a line through one point is invisible
                axis.plot(
                    curve["epoch"], curve["macro_f1"], marker=dot, ms=3, color=stroke, lw=width, zorder=order
                )
        drawing.set_title(axis, variant)
        axis.set_xlabel(reports)
        integer_ticks(axis)
    axes[0].set_ylabel("inner macro-F1")
    return drawn(figure)


@styled
def best_so_far(trials: Trials, hours: str) -> Drawing:
    """One panel: a step line per search with the best score of the completed trials against the time of all
    trials.

    Trials come in the order of their start. `hours` is the unit of the x axis.
    """
    figure, (axis,) = grid(1, 1, 5.6, 2.8)
    for index, (variant, searches) in enumerate(trials.items()):
        for place, table in enumerate(searches):
            spent = table["seconds"].fillna(0).cumsum() / 3600
            best = table["macro_f1"].where(table["state"] == "completed").cummax().ffill()
            label = variant if place == 0 else None
            alpha = 0.9 if len(searches) == 1 else 0.6
            axis.step(spent, best, where="post", color=colour(index), lw=1.8, alpha=alpha, label=label)
            axis.plot(spent, best, color=colour(index), marker=marker(index), ms=3.5, lw=0, alpha=0.6)
    axis.set_xlabel(hours)
    axis.set_ylabel("inner macro-F1")
    axis.set_xlim(left=0)
    legend_above(figure, axis)
    return drawn(figure)


@styled
def marginals(
    trials: Trials, domains: Mapping[str, Domain], posteriors: Mapping[str, Optimum | None]
) -> Drawing:
    """One panel per searched key: a point per trial, hollow if it was stopped early. A line with a band is
    the posterior of the score that the key can reach. Without a posterior a line is the mean of the completed
    trials in each bin. Grey bars are the numbers of draws among these trials, of all variants together."""
    figure, axes = grid(len(domains), min(3, len(domains)), 3.4, 2.7, sharey=True)
    pooled = _with_draws(trials, domains)
    lowest, highest = _limits(pooled.values())
    for axis, (key, domain) in zip(axes, domains.items(), strict=True):
        put = _scale(axis, domain)
        shift = 0.16 if "choice" in domain else 0.0  # so that variants with the same option do not overlap
        tried = []
        for index, (variant, table) in enumerate(pooled.items()):
            if key not in table:
                continue
            aside = shift * (index - (len(pooled) - 1) / 2)
            _points(axis, put(table[key]) + aside, table, index, variant)
            places = space.place(domain, table[key])
            known = (table["state"] == "completed") & table["macro_f1"].notna() & ~np.isnan(places)
            bins = np.digitize(places, _edges(domain)[1:-1])
            tried.append(pd.DataFrame({"bin": bins, "draw": table["draw"]})[known])
            found = posteriors.get(variant)
            if found is not None and key in found.cube.keys:
                _reach(axis, found, key, aside, colour(index))
                continue
            means = table["macro_f1"].where(known).groupby(bins).mean()
            x = _centres(domain)[means.index.to_numpy(int)] + aside
            axis.plot(x, means, color=colour(index), lw=1.2, marker="_", ms=9)
        _support(axis, domain, _draws_in_bins(tried, domain))
        axis.set_xlabel(key)
    reached = [found.profiles[0].max(axis=1) for found in posteriors.values() if found is not None]
    tops = [float(np.quantile(best, 0.9)) + 0.02 * (highest - lowest) for best in reached]
    axes[0].set_ylim(lowest, max([highest, *tops]))
    for axis in axes[:: min(3, len(domains))]:
        axis.set_ylabel("inner macro-F1")
    legend_above(figure, axes[0])
    return drawn(figure)


def _reach(axis: Axes, found: Optimum, key: str, aside: float, ink: str) -> None:
    """Draw the score that a key can reach, the others at their best: mean and 80 % of the posterior."""
    k = found.cube.keys.index(key)
    low, high = np.quantile(found.profiles[k], [0.1, 0.9], axis=0)
    mean, grid, domain = found.profiles[k].mean(axis=0), found.cube.grid(k), found.cube.domains[key]
    values = [found.cube.value(k, unit) for unit in grid]
    if "choice" in domain:
        x = space.place(domain, values) + aside
        bars = np.array([mean - low, high - mean]).clip(0)
        axis.errorbar(x, mean, bars, color=ink, lw=0, elinewidth=1.2, marker="_", ms=9)
        return
    axis.plot(values, mean, color=ink, lw=1.2)
    axis.fill_between(values, low, high, color=ink, alpha=0.15, lw=0)


@styled
def plane(trials: Trials, x: tuple[str, Domain], y: tuple[str, Domain]) -> Drawing:
    """One panel per variant: the trials at their values of two keys, coloured by score. Hollow points were
    stopped early."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = grid(len(trials), min(3, len(trials)), 3.2, 2.7, sharey=True)
    pooled = {variant: pd.concat(searches, ignore_index=True) for variant, searches in trials.items()}
    scores = pd.concat([table["macro_f1"] for table in pooled.values()])
    shades = ScalarMappable(Normalize(scores.min(), scores.max()), "viridis")
    for axis, (variant, table) in zip(axes, pooled.items(), strict=True):
        table = table[table["macro_f1"].notna()].sort_values("macro_f1", kind="stable")  # the best on top
        across, up = _scale(axis, x[1])(table[x[0]]), _scale(axis, y[1], "y")(table[y[0]])
        shade = shades.to_rgba(table["macro_f1"].to_numpy(float))
        done = (table["state"] == "completed").to_numpy()
        axis.scatter(across[~done], up[~done], s=30, fc="none", ec=shade[~done], lw=1.1)
        axis.scatter(across[done], up[done], s=34, color=shade[done], lw=0)
        drawing.set_title(axis, variant)
        axis.set_xlabel(x[0])
    axes[0].set_ylabel(y[0])
    figure.colorbar(shades, ax=axes, label="inner macro-F1", pad=0.01)
    return drawn(figure)


@styled
def parallel(trials: Trials, domains: Mapping[str, Domain]) -> Drawing:
    """One panel per variant with an axis for each searched key, and one for the score: a line per trial,
    coloured by its score, grey if it was stopped early. Each axis goes from one end of its range to the
    other."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = grid(len(trials), 1, max(5.0, 1.15 * (len(domains) + 1)), 2.3)
    pooled = {variant: pd.concat(searches, ignore_index=True) for variant, searches in trials.items()}
    scores = pd.concat([table["macro_f1"] for table in pooled.values()]).dropna()
    shades = ScalarMappable(Normalize(scores.min(), scores.max()), "viridis")
    for axis, (variant, table) in zip(axes, pooled.items(), strict=True):
        own = [key for key in domains if key in table]
        table = table[table["macro_f1"].notna()].sort_values("macro_f1", kind="stable")  # the best on top
        heights = np.column_stack(
            [
                *(_height(domains[key], table[key]) for key in own),
                np.asarray(shades.norm(table["macro_f1"].to_numpy(float))),
            ]
        )
        places = np.arange(len(own) + 1)
        for height, score, state in zip(heights, table["macro_f1"], table["state"], strict=True):
            done = state == "completed"
            ink = shades.to_rgba(score) if done else GREY
            axis.plot(places, height, color=ink, lw=1.3 if done else 0.7, alpha=0.9 if done else 0.6)
        for place, key in enumerate(own):
            low, high = _ends(domains[key])
            axis.text(place, -0.03, low, ha="center", va="top", fontsize=7)
            axis.text(place, 1.03, high, ha="center", va="bottom", fontsize=7)
        axis.vlines(places, 0, 1, color=INK, lw=0.7)
        axis.set_xticks(places, [*(key.rpartition(".")[2] for key in own), "macro F1"])
        axis.tick_params(length=0, pad=9)
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.set_ylim(-0.12, 1.12)
        drawing.set_title(axis, variant)
    figure.colorbar(shades, ax=axes, label="inner macro-F1", pad=0.01, shrink=0.5, aspect=30)
    return drawn(figure)


def _height(domain: Domain, values: pd.Series) -> np.ndarray:
    """The places of values between the ends of their range, from 0 to 1."""
    low, high = space.bounds(domain)
    return (space.place(domain, values) - low) / max(high - low, 1e-12)


def _ends(domain: Domain) -> tuple[str, str]:
    """The two ends of a range, or the first and the last option."""
    values = next(iter(domain.values()))
    return drawing.shortened(number(values[0])), drawing.shortened(number(values[-1]))


def _with_draws(trials: Trials, domains: Mapping[str, Domain]) -> dict[str, pd.DataFrame]:
    """Variant -> the trials of all its searches, with a column `draw`: equal numbers are one draw."""
    tables = [table for searches in trials.values() for table in searches]
    numbers = iter(draws.numbered(tables, domains))
    return {
        variant: pd.concat([table.assign(draw=next(numbers)) for table in searches], ignore_index=True)
        for variant, searches in trials.items()
    }


def _draws_in_bins(tried: Sequence[pd.DataFrame], domain: Mapping[str, Any]) -> np.ndarray:
    """The number of different draws in each bin. `tried`: tables with a row per trial, its bin and draw."""
    once = pd.concat(tried).drop_duplicates() if tried else pd.DataFrame({"bin": []})
    return np.bincount(once["bin"].astype(int), minlength=len(_edges(domain)) - 1)


def _points(axis: Axes, x: np.ndarray, table: pd.DataFrame, index: int, variant: str) -> None:
    """Draw the trials of a table: completed ones filled, others hollow."""
    done, score = (table["state"] == "completed").to_numpy(), table["macro_f1"].to_numpy(float)
    shape, ink = marker(index), colour(index)
    axis.scatter(x[done], score[done], s=18, marker=shape, color=ink, alpha=0.7, lw=0, label=variant)
    axis.scatter(x[~done], score[~done], s=16, marker=shape, fc="none", ec=ink, alpha=0.5, lw=0.8)


def _limits(tables: Any) -> tuple[float, float]:
    """The limits of the score axis, with room below for the grey bars."""
    scores = pd.concat([table["macro_f1"] for table in tables]).dropna()
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    room = max(high - low, 0.05)
    return low - 0.3 * room, high + 0.06 * room


def _edges(domain: Domain) -> np.ndarray:
    """The edges of the bins, as places: a bin per option of a choice, else BINS bins of equal width."""
    low, high = space.bounds(domain)
    return np.arange(low - 0.5, high + 1) if "choice" in domain else np.linspace(low, high, BINS + 1)


def _centres(domain: Domain) -> np.ndarray:
    """The centres of the bins, on the drawn axis."""
    middle = (_edges(domain)[1:] + _edges(domain)[:-1]) / 2
    return 10**middle if "loguniform" in domain else middle


def _support(axis: Axes, domain: Domain, counts: np.ndarray) -> None:
    """Draw the numbers of trials as grey bars at the bottom of the panel, at most an eighth of its height."""
    edges = _edges(domain)
    edges = 10**edges if "loguniform" in domain else edges
    where = axis.get_xaxis_transform()
    heights = 0.12 * counts / max(counts.max(), 1)
    look: dict[str, Any] = {"color": GREY, "alpha": 0.45, "ec": "white", "lw": 0.6, "zorder": 0}
    axis.bar(edges[:-1], heights, np.diff(edges), align="edge", transform=where, **look)
    for x, height, n in zip(_centres(domain), heights, counts, strict=True):
        axis.text(x, height + 0.015, str(int(n)), transform=where, ha="center", fontsize=6.5, color=INK)


def _scale(axis: Axes, domain: Domain, side: str = "x") -> Callable[[pd.Series], np.ndarray]:
    """Set up the x or y axis for a domain. Returns the function from values to positions on the axis."""
    which = axis.xaxis if side == "x" else axis.yaxis
    limit = axis.set_xlim if side == "x" else axis.set_ylim
    if "choice" in domain:
        options = [str(option) for option in domain["choice"]]
        which.set_ticks(range(len(options)), options)
        limit(-0.5, len(options) - 0.5)
        return lambda values: space.place(domain, values)
    low, high = next(iter(domain.values()))
    if "loguniform" in domain:
        (axis.set_xscale if side == "x" else axis.set_yscale)("log")
        which.set_major_formatter(lambda value, _: f"{value:g}")  # matplotlib's own needs mathematics
        which.set_minor_formatter(lambda *_: "")
        margin = (high / low) ** 0.04
        limit(low / margin, high * margin)
    else:
        margin = (high - low) * 0.04
        limit(low - margin, high + margin)
    for border in (low, high):
        (axis.axvline if side == "x" else axis.axhline)(border, color=GREY, lw=0.8, ls=":", zorder=0)
    return lambda values: values.to_numpy(float)
