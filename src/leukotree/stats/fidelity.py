"""Scores of trials at one fidelity: after full training, also for trials that were stopped early.

A trial that was stopped counts with the final score that its last one predicts. The prediction is a straight
line through the trials that trained on: (score at that report, final score). Which trials train on is decided
by the score at the report, so the line has no bias from the choice. Its uncertainty is that of the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 4
"""With fewer trials that trained on, there is no line."""
SLOPE = 0.5
"""Deviation of the line's slope from 1, before the trials are known."""

Curve = Mapping[int, float]
"""Report, from 1 -> score."""


class Final(NamedTuple):
    """Scores of N trials at one fidelity."""

    scores: np.ndarray
    """(N,). NaN for a trial without one."""
    variance: np.ndarray
    """(N,) of the prediction; 0 for a score that was reached."""
    report: int
    """The report at which they are equal: the last one, or the highest that FEWEST trials reached."""


def final(curves: Sequence[Curve], failed: Sequence[bool], reports: int) -> Final:
    """The scores after the last report. Where fewer than FEWEST trials reached it, those after the highest
    report that so many reached. A trial that failed has the worst score.

    Args:
        curves: the scores of each trial.
        failed: whether it cannot be trained.
        reports: the number of reports of a trial that is trained to its end.
    """
    reached = np.array([max(curve, default=0) for curve in curves], dtype=int)
    report = next((at for at in range(reports, 0, -1) if (reached >= at).sum() >= FEWEST), 0)
    scores, variance = np.full(len(curves), np.nan), np.zeros(len(curves))
    for last in np.unique(reached[reached > 0]):
        own = np.flatnonzero(reached == last).tolist()
        if last >= report:
            scores[own] = [curves[i].get(report, curves[i][last]) for i in own]
        else:
            further = [
                curve for curve, end in zip(curves, reached, strict=True) if end >= report and last in curve
            ]
            begun = np.array([curves[i][last] for i in own])
            scores[own], variance[own] = _predicted(
                np.array([curve[last] for curve in further]),
                np.array([curve[report] for curve in further]),
                begun,
            )
    known = ~np.isnan(scores)
    if known.any():
        scores[np.array(failed, dtype=bool)] = scores[known].min()
        variance[np.array(failed, dtype=bool)] = 0.0
    return Final(scores, variance, report)


def _predicted(early: np.ndarray, late: np.ndarray, begun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Final scores of trials with the early scores `begun`, and their variances. early, late: (F,) scores of
    the trials that trained on. NaN for fewer than FEWEST of them."""
    if len(early) < FEWEST:
        return np.full(len(begun), np.nan), np.zeros(len(begun))
    centre, rise = early.mean(), late - early
    x, y = early - centre, rise - rise.mean()
    residual = float(y.var(ddof=1)) + 1e-12
    precision = (x**2).sum() / residual + 1 / SLOPE**2
    slope = (x * y).sum() / residual / precision
    left = y - slope * x
    residual = float((left**2).sum() / (len(left) - 2)) + 1e-12
    away = begun - centre
    return begun + rise.mean() + slope * away, residual * (1 + 1 / len(early)) + away**2 / precision
