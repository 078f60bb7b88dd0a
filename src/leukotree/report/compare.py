"""Is one variant better than another? The corrected resampled t interval of Nadeau and Bengio (2003)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student_t

Verdict = Literal["better", "worse", "inconclusive", "not estimable"]


@dataclass(frozen=True)
class Difference:
    """Mean difference over J folds, its two-sided 95 % interval (NaN where it cannot be had) and what follows."""

    mean: float
    low: float
    high: float
    folds: int
    verdict: Verdict


def corrected_difference(differences: Sequence[float], test_train_ratio: float) -> Difference:
    """Interval mean +- t(J - 1) sqrt(s^2 (1 / J + n_test / n_train)) of fold-wise differences, challenger minus reference.

    Folds share training images, so their scores are correlated and the plain t interval is too narrow; the second term
    corrects for it. `not estimable` for fewer than two folds, or for differences without any spread.
    """
    values = np.asarray(differences, dtype=float)
    folds = len(values)
    mean = float(values.mean()) if folds else math.nan
    spread = float(values.std(ddof=1)) if folds > 1 else 0.0
    if spread == 0.0:
        # Equal scores in every fold are no evidence of a difference; one and the same difference in all has no t.
        verdict: Verdict = "inconclusive" if folds > 1 and mean == 0 else "not estimable"
        return Difference(mean, math.nan, math.nan, folds, verdict)
    half = float(student_t.ppf(0.975, folds - 1)) * spread * math.sqrt(1 / folds + test_train_ratio)
    low, high = mean - half, mean + half
    return Difference(mean, low, high, folds, "better" if low > 0 else "worse" if high < 0 else "inconclusive")
