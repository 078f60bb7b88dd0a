"""Tests of two arms: over the folds of a cross-validation, which share training images, and over patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-12
"""Differences that differ by less are the same: the rest is the rounding of scores in 0..1."""


class CorrectedT(NamedTuple):
    """The corrected resampled t-test of a mean difference: standard error, degrees of freedom, two-sided
    interval, p values."""

    mean: float
    se: float
    df: int
    low: float
    high: float
    p: float
    """Two-sided."""
    p_greater: float
    """One-sided, against "the mean is above 0"; 1 - p_less."""
    p_less: float


class Probabilities(NamedTuple):
    """Of a true difference below -rope, within [-rope, rope], and above rope; they sum to 1."""

    worse: float
    same: float
    better: float


class McNemar(NamedTuple):
    """Patients that only the first, only the second arm has right, and the exact two-sided p value."""

    first_only: int
    second_only: int
    p: float


def nadeau_bengio(differences: Sequence[float], ratio: float, confidence: float = 0.95) -> CorrectedT | None:
    """Corrected resampled t-test (Nadeau and Bengio 2003, section 4): SE = sqrt(s^2 (1 / J + ratio)), J - 1
    degrees of freedom.

    Folds share training images, so their scores are correlated and the plain t-test finds too much; the
    second term stands for a correlation of n_test / (n_test + n_train) between folds.

    Args: differences: J fold-wise differences, challenger minus reference, seeds averaged within a fold (they
        are not more folds). ratio: n_test / n_train of a fold.

    None for fewer than two folds, or without any spread.
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
    width `rope`.

    The posterior of the mean difference is Student's t with the location, scale and degrees of freedom of
    `nadeau_bengio`. With
    `ratio` = 1 / (K - 1) it is what baycomp computes for K folds. None where `nadeau_bengio` is.
    """
    from scipy.stats import t as student_t

    found = nadeau_bengio(differences, ratio)
    if found is None:
        return None
    worse = float(student_t.cdf((-rope - found.mean) / found.se, found.df))
    better = float(student_t.sf((rope - found.mean) / found.se, found.df))
    return Probabilities(worse, max(0.0, 1 - worse - better), better)


def holm(p: Sequence[float]) -> np.ndarray:
    """(M,) p values adjusted by Holm's step-down procedure (1979): the family-wise error stays below the
    level that they meet.

    NaN is a declared comparison that could not be made: it stays NaN, and counts in the size of the family.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)  # NaN last
    steps = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps * values[order]), 1)
    return adjusted


def smallest_detectable(
    differences: Sequence[float],
    ratio: float,
    power: float = 0.8,
    rope: float = 0.0,
    family: int = 1,
    alpha: float = 0.05,
) -> float | None:
    """The smallest true difference that would be found with chance `power`, at the spread that these folds
    show.

    Found means that the two-sided test has p < alpha / family (Holm's first step), and that the posterior
    probability of more than `rope` is at least 1 - alpha. With rope 0 and family 1 this is the noncentral t
    power of the test. None where
    `nadeau_bengio` is.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm
    from scipy.stats import t as student_t

    found = nadeau_bengio(differences, ratio)
    if found is None:
        return None
    points = (np.arange(1000) + 0.5) / 1000
    seen = found.se * np.sqrt(
        chi2.ppf(points, found.df) / found.df
    )  # standard errors that such a study may show
    tested = student_t.ppf(1 - alpha / (2 * family), found.df) * seen
    needed = np.maximum(tested, rope + student_t.ppf(1 - alpha, found.df) * seen)
    return float(
        brentq(
            lambda true: norm.sf((needed - true) / found.se).mean() - power, 0, needed.max() + 10 * found.se
        )
    )


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Exact McNemar test of two arms on the same P patients; first, second: (P,) bool, whether a patient is
    right.

    Never on images: those of a patient are not independent.
    """
    from scipy.stats import binomtest

    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(one, other, float(binomtest(one, one + other).pvalue) if one + other else 1.0)
