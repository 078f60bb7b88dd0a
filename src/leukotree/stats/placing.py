"""The place of one score among those of controls, such as a label tree among trees with permuted leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leukotree.stats.comparing import ROUNDING


class Place(NamedTuple):
    """A score among k controls."""

    rank: int
    """1 is the best. Controls with an equal score do not count as better."""
    controls: int
    """k."""
    p: float
    """(1 + controls that are at least as good) / (1 + k): the p value of the rank, if the score is
    exchangeable with the controls. NaN without controls."""
    low: float
    high: float
    """Ends of the two-sided 95 % prediction interval for one more control. NaN for fewer than two controls,
    or without spread."""

    @property
    def smallest_p(self) -> float:
        """The smallest p value that a rank among so many controls can have."""
        return 1 / (1 + self.controls)


def place(score: float, controls: Sequence[float], confidence: float = 0.95) -> Place:
    """Where a score stands among those of k controls.

    The rank's p value counts the score itself (Phipson and Smyth 2010), so it is never 0. The prediction
    interval is mean +- t(k - 1) s sqrt(1 + 1 / k), for normal scores (Hahn and Meeker 1991, section 4.7). It
    has the spread between the controls in it, which a test against their mean does not have. Raises
    ValueError for NaN.
    """
    from scipy.stats import t as student_t

    values = np.asarray(controls, dtype=float)
    if math.isnan(score) or np.isnan(values).any():
        raise ValueError("a score is not a number")
    k = len(values)
    better = int((values > score + ROUNDING).sum())
    as_good = int((values >= score - ROUNDING).sum())
    low = high = math.nan
    if k > 1 and np.ptp(values) >= ROUNDING:
        half = float(student_t.ppf(0.5 + confidence / 2, k - 1)) * float(values.std(ddof=1))
        half *= math.sqrt(1 + 1 / k)
        low, high = float(values.mean()) - half, float(values.mean()) + half
    return Place(1 + better, k, (1 + as_good) / (1 + k) if k else math.nan, low, high)
