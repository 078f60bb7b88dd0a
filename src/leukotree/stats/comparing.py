"""Tests of two arms: over the folds of a cross-validation, which share training images, and over patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-12
"""Differences closer than this count as equal: scores in 0..1 are rounded."""


class CorrectedT(NamedTuple):
    """The corrected resampled t-test of a mean difference."""

    mean: float
    se: float
    """Standard error."""
    df: int
    """Degrees of freedom."""
    low: float
    """Lower end of the two-sided interval."""
    high: float
    p: float
    """Two-sided."""
    p_greater: float
    """One-sided, for the alternative that the mean is above 0."""
    p_less: float
    """One-sided, for the alternative that the mean is below 0."""


class Probabilities(NamedTuple):
    """Posterior probabilities of a difference below -rope, within [-rope, rope], and above rope. The sum is
    1."""

    worse: float
    same: float
    better: float


class McNemar(NamedTuple):
    """Numbers of patients that only one arm predicts correctly, and the exact two-sided p value."""

    first_only: int
    second_only: int
    p: float


def nadeau_bengio(differences: Sequence[float], ratio: float, confidence: float = 0.95) -> CorrectedT | None:
    """Corrected resampled t-test (Nadeau and Bengio 2003, section 4): SE = sqrt(s^2 (1 / J + ratio)), J - 1
    degrees of freedom. None for fewer than two folds, or without spread.

    Folds share training images, so their scores are correlated, and the plain t-test rejects too often. The
    second term assumes a correlation of n_test / (n_test + n_train) between folds.

    With R repeats of a K-fold cross-validation, J = R K: the corrected repeated k-fold cross-validation test
    (Bouckaert and Frank 2004, equation 3). More repeats make the first term small, never the second.

    Args:
        differences: of J folds (of all repeats), challenger minus reference, means over seeds. Seeds are not
            more folds.
        ratio: n_test / n_train of a fold.
    """
    from scipy.stats import t as student_t

    values = np.asarray(differences, dtype=float)
    folds = len(values)
    if folds < 2 or np.ptp(values) < ROUNDING:
        return None
    mean, df = float(values.mean()), folds - 1
    se = float(values.std(ddof=1)) * math.sqrt(1 / folds + ratio)
    half = float(student_t.ppf(0.5 + confidence / 2, df)) * se
    less, greater = float(student_t.cdf(mean / se, df)), float(student_t.sf(mean / se, df))
    return CorrectedT(mean, se, df, mean - half, mean + half, 2 * min(less, greater), greater, less)


def correlated_t(differences: Sequence[float], ratio: float, rope: float) -> Probabilities | None:
    """Bayesian correlated t-test (Corani and Benavoli 2015) with a region of practical equivalence of half
    width `rope`. None if `nadeau_bengio` is None.

    The posterior of the mean difference is Student's t with the location, scale and degrees of freedom of
    `nadeau_bengio`. With `ratio` = 1 / (K - 1) it is that of baycomp for K folds.
    """
    from scipy.stats import t as student_t

    test = nadeau_bengio(differences, ratio)
    if test is None:
        return None
    worse = float(student_t.cdf((-rope - test.mean) / test.se, test.df))
    better = float(student_t.sf((rope - test.mean) / test.se, test.df))
    return Probabilities(worse, max(0.0, 1 - worse - better), better)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """(..., M) p values of families of M, adjusted by Holm's step-down procedure (1979), which controls the
    family-wise error.

    NaN stands for a declared comparison without a result. It stays NaN, and counts in the size of the family.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, axis=-1)  # NaN last
    steps = values.shape[-1] - np.arange(values.shape[-1])
    raised = np.maximum.accumulate(steps * np.take_along_axis(values, order, axis=-1), axis=-1)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.minimum(raised, 1), axis=-1)
    return adjusted


def smallest_detectable(
    differences: Sequence[float],
    ratio: float,
    power: float = 0.8,
    rope: float = 0.0,
    family: int = 1,
    alpha: float = 0.05,
) -> float | None:
    """The smallest true difference that is detected with probability `power`, if the spread of these folds is
    the true one. None if `nadeau_bengio` is None.

    Detected means that the two-sided test has p < alpha / family (Holm's first step), and that the posterior
    probability of more than `rope` is at least 1 - alpha. With rope 0 and family 1 this is the power of the
    noncentral t-test.
    """
    test = nadeau_bengio(differences, ratio)
    return None if test is None else _detectable(test.se, test.df, power, rope, family, alpha)


def detectable_range(
    differences: Sequence[float],
    ratio: float,
    power: float = 0.8,
    rope: float = 0.0,
    family: int = 1,
    alpha: float = 0.05,
    confidence: float = 0.95,
    of_spread: int | None = None,
) -> tuple[float, float] | None:
    """The interval of `smallest_detectable` for the spread that is not known: it is estimated from J folds.
    None if `nadeau_bengio` is None.

    The smallest detectable difference rises with the true spread, so its interval has the values at the two
    ends of the spread's interval, see `spread_factors`. With rope 0 and five folds these are 0.60 and 2.87
    times the estimate.

    of_spread: degrees of freedom of the spread. None: J - 1. Folds of several repeats test the same patients
    again, so they know the spread less well than as many folds of other patients: give those of one repeat.
    """
    test = nadeau_bengio(differences, ratio)
    if test is None:
        return None
    low, high = (
        _detectable(test.se * factor, test.df, power, rope, family, alpha)
        for factor in spread_factors(of_spread or test.df, confidence)
    )
    return low, high


def spread_factors(df: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of a standard deviation, as multiples of its estimate s with `df` degrees of
    freedom.

    df s^2 / sigma^2 has the chi-square distribution, for normal values that are equally correlated, as the
    corrected test assumes of folds. So sigma lies between s sqrt(df / q) for its upper and lower quantile q.
    """
    from scipy.stats import chi2

    upper, lower = chi2.ppf([0.5 + confidence / 2, 0.5 - confidence / 2], df)
    return math.sqrt(df / upper), math.sqrt(df / lower)


def _detectable(se: float, df: int, power: float, rope: float, family: int, alpha: float) -> float:
    """`smallest_detectable` where the true standard error is `se`."""
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm
    from scipy.stats import t as student_t

    points = (np.arange(1000) + 0.5) / 1000
    # Standard errors that such a study may have.
    errors = se * np.sqrt(chi2.ppf(points, df) / df)
    significant = student_t.ppf(1 - alpha / (2 * family), df) * errors
    needed = np.maximum(significant, rope + student_t.ppf(1 - alpha, df) * errors)

    def lacking(difference: float) -> float:
        return float(norm.sf((needed - difference) / se).mean() - power)

    return float(brentq(lacking, 0, needed.max() + 10 * se))


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Exact McNemar test of two arms on the same P patients.

    Images would not be independent: those of a patient are similar.

    Args:
        first: (P,) bool, whether the first arm predicts a patient correctly.
        second: (P,) bool, the same for the second arm.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, differ).pvalue) if differ else 1.0)
