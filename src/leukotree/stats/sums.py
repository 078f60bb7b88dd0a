"""Intervals of many scores at a time, from sums over the images of each patient.

Each draw of the bootstrap weighs the patients' sums, and all scores are functions of the weighted sums. The
draws are those of `resampling`: the same seed and strata give the same patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from leukotree.evaluation.metrics import FLOOR
from leukotree.stats.resampling import DRAWS, interval, weights, without_each

Sums = Mapping[str, np.ndarray]
"""Name -> (..., F) sums."""
UNDEFINED = 0.05
"""With a larger share of draws in which a score is not defined (0 / 0), its interval is not estimable."""


def intervals_of(
    parts: Sums,
    strata: np.ndarray,
    statistic: Callable[[Sums], np.ndarray],
    draws: int = DRAWS,
    seed: int = 0,
) -> list[tuple[float, float] | None]:
    """The 95 % interval of each of K scores, see `resampling.interval`. None where it is not estimable.

    A score that is not defined without one of the patients has no interval: it depends on this patient.

    Args:
        parts: name -> (P, F) sums of the P clusters. F may differ between names.
        strata: (P,) int64 from 0, see `Clusters`.
        statistic: from name -> (..., F) sums to (..., K) scores. NaN where a score is not defined.
    """
    names, widths = list(parts), [part.shape[1] for part in parts.values()]
    flat = np.concatenate(list(parts.values()), axis=1)

    def scores(sums: np.ndarray) -> np.ndarray:
        pieces = np.split(sums, np.cumsum(widths)[:-1], axis=-1)
        return statistic(dict(zip(names, pieces, strict=True)))

    n_scores = scores(flat.sum(axis=0)).shape[-1]
    if len(strata) < FLOOR or np.bincount(strata).min() < 2:
        return [None] * n_scores
    samples = np.concatenate([scores(drawn @ flat) for drawn in weights(strata, draws, seed)])
    left_out = scores(without_each(flat, strata))
    return [_interval(samples[:, k], left_out[:, k], strata) for k in range(n_scores)]


def _interval(samples: np.ndarray, left_out: np.ndarray, strata: np.ndarray) -> tuple[float, float] | None:
    defined = ~np.isnan(samples)
    if defined.mean() < 1 - UNDEFINED or np.isnan(left_out).any():
        return None
    return interval(samples[defined], left_out, strata)
