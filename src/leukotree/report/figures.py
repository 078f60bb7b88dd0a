"""Figures as PNG bytes, drawn with matplotlib's Agg canvas and no global state: same data, same bytes."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito: told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#b8bec6"
INK = "#2b2f36"

_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.edgecolor": "#8a929c", "axes.linewidth": 0.8,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8.5, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
}  # fmt: skip
Parameters = ParamSpec("Parameters")


def _styled(draw: Callable[Parameters, bytes]) -> Callable[Parameters, bytes]:
    """Draw in this report's style and leave matplotlib's settings as they were."""

    @functools.wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> bytes:
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def confusions(counts: Mapping[str, np.ndarray], leaves: Sequence[str]) -> bytes:
    """One (L, L) matrix per variant: colour is the share of the row, text the count."""
    side = max(2.6, 0.62 * len(leaves) + 1.0)
    figure, axes = _grid(len(counts), min(3, len(counts)), side, side + 0.25)
    for column, (axis, (variant, table)) in enumerate(zip(axes, counts.items(), strict=False)):
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, col in np.ndindex(*table.shape):
            dark = share[row, col] > 0.65
            label = f"{100 * share[row, col]:.0f} %\n{table[row, col]}" if table[row, col] else "0"
            faint = GREY if not table[row, col] else INK
            axis.text(col, row, label, ha="center", va="center", fontsize=7, color="white" if dark else faint)
        axis.set_xticks(range(len(leaves)), leaves, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(leaves)), leaves if column % 3 == 0 else [""] * len(leaves))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_title(variant, fontweight="bold")
        axis.set_xlabel("predicted")
    axes[0].set_ylabel("true")
    return _png(figure)


@_styled
def learning_curves(histories: Mapping[str, pd.DataFrame], chosen: Mapping[str, str]) -> bytes:
    """One panel per variant: macro-F1 over epochs, a grey line per trial, the chosen trial in colour."""
    figure, axes = _grid(len(histories), min(3, len(histories)), 3.9, 2.9, sharey=True)
    for index, (axis, (variant, history)) in enumerate(zip(axes, histories.items(), strict=False)):
        for trial, curve in history.sort_values("epoch").groupby("trial"):
            picked = trial == chosen.get(variant)
            colour, width, order = (COLOURS[index % len(COLOURS)], 2, 3) if picked else (GREY, 1, 2)
            marker = "o" if len(curve) == 1 else None  # one epoch alone is a point, not an invisible line
            label = "chosen" if picked else None
            axis.plot(curve["epoch"], curve["macro_f1"], marker=marker, ms=3, label=label, color=colour, lw=width, zorder=order)
        axis.set_title(variant, fontweight="bold")
        axis.set_xlabel("epoch")
        _integers(axis)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="lower right")
    axes[0].set_ylabel("inner macro-F1")
    return _png(figure)


@_styled
def best_so_far(trials: Mapping[str, pd.DataFrame]) -> bytes:
    """All variants in one panel: each trial a faint point, the best so far a step line. Trials in order of their start."""
    figure, (axis,) = _grid(1, 1, 6.4, 3.2)
    for index, (variant, table) in enumerate(trials.items()):
        number, colour = np.arange(1, len(table) + 1), COLOURS[index % len(COLOURS)]
        axis.scatter(number, table["macro_f1"], s=16, marker=MARKERS[index % len(MARKERS)], color=colour, alpha=0.35, lw=0)
        best = table["macro_f1"].cummax().ffill()
        axis.step(number, best, where="post", color=colour, lw=2, label=variant)
    axis.set_xlabel("trial")
    axis.set_ylabel("inner macro-F1")
    _integers(axis)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(trials))
    return _png(figure)


@_styled
def marginals(trials: Mapping[str, pd.DataFrame], space: Mapping[str, Mapping[str, Any]]) -> bytes:
    """One panel per searched key: value against macro-F1; trials stopped early are hollow."""
    figure, axes = _grid(len(space), min(3, len(space)), 3.9, 2.8, sharey=True)
    for axis, (key, domain) in zip(axes, space.items(), strict=False):
        place = _scale(axis, domain)
        for index, (variant, table) in enumerate(trials.items()):
            if key not in table:
                continue
            # Small fixed shifts keep variants apart that share a choice.
            shift = 0.16 * (index - (len(trials) - 1) / 2) if "choice" in domain else 0.0
            x, whole = place(table[key]) + shift, (table["state"] == "completed").to_numpy()
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axis.scatter(x[whole], table["macro_f1"][whole], s=22, marker=marker, color=colour, alpha=0.85, lw=0, label=variant)
            axis.scatter(x[~whole], table["macro_f1"][~whole], s=20, marker=marker, fc="none", ec=colour, alpha=0.6, lw=0.9)
        axis.set_xlabel(key)
    for axis in axes[:: min(3, len(space))]:
        axis.set_ylabel("inner macro-F1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(trials))
    return _png(figure)


def _scale(axis: Axes, domain: Mapping[str, Any]) -> Any:
    """Set an axis up for a domain of the space; returns the function from values to places on it."""
    if "choice" in domain:
        options = list(domain["choice"])
        axis.set_xticks(range(len(options)), [str(option) for option in options])
        axis.set_xlim(-0.5, len(options) - 0.5)
        texts = [_plain(option) for option in options]
        return lambda values: np.array([texts.index(_plain(v)) if _plain(v) in texts else math.nan for v in values])
    low, high = domain.get("loguniform") or domain["uniform"]
    if "loguniform" in domain:
        axis.set_xscale("log")
        margin = (high / low) ** 0.04
        axis.set_xlim(low / margin, high * margin)
    else:
        margin = (high - low) * 0.04
        axis.set_xlim(low - margin, high + margin)
    for border in (low, high):
        axis.axvline(border, color=GREY, lw=0.8, ls=":", zorder=0)
    return lambda values: values.to_numpy(float)


def _plain(value: Any) -> str:
    """One text for 16 and 16.0, since a table column of integers with a gap is read as floats."""
    try:
        return repr(float(value))
    except (TypeError, ValueError):
        return str(value)


def _integers(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _grid(panels: int, columns: int, width: float, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` axes of about width x height inches each; unused places are removed."""
    from matplotlib.figure import Figure

    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return buffer.getvalue()
