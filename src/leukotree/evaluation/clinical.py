"""Scores that clinicians ask for: one target of the tree against the rest, agreement, calibration and net
benefit.

A target is a leaf, or the group of all leaves below a node: "leukemia" against not leukemia.

All functions of counts take sums over images with any leading axes, so that a bootstrap can give weighted
ones. The counts of a target are (..., 4): true positives, false positives, false negatives, true negatives.
0 / 0 is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from leukotree.taxonomy import Taxonomy

LIMIT = 30.0
"""Log odds are cut at +-LIMIT: a probability of 0 or 1 has infinite ones."""


class Target(NamedTuple):
    """Leaves that are told from all others."""

    name: str
    leaves: np.ndarray
    """(L,) bool: the positive leaves."""


class Rates(NamedTuple):
    """All arrays are (...)."""

    sensitivity: np.ndarray
    specificity: np.ndarray
    ppv: np.ndarray
    """Positive predictive value: it depends on the shares of the leaves in the data."""
    npv: np.ndarray
    """Negative predictive value."""


class Recalibration(NamedTuple):
    """Logistic recalibration of the log odds x of a target (Cox 1958; Van Calster et al. 2016)."""

    slope: float
    """b of logit P(target) = a + b x. 1 is right; below 1 the probabilities are too extreme."""
    joint: float
    """a beside that slope."""
    intercept: float
    """a of logit P(target) = a + x. 0 is right; above 0 the probabilities are too low on average."""


def targets(taxonomy: Taxonomy) -> list[Target]:
    """Each leaf, then each group of leaves that the first decision of the tree tells from the others. In the
    paper's tree this is leukemia."""
    below = dict(zip(taxonomy.edges, taxonomy.leaves_below, strict=True))
    first = next(iter(taxonomy.decisions.values()))
    groups = [name for name in first if below[name].sum() > 1]
    return [Target(name, below[name]) for name in (*taxonomy.leaves, *groups)]


def log_odds(leaf_logp: np.ndarray, target: Target) -> np.ndarray:
    """(N,) log P(target) - log P(others), within +-LIMIT, from (N, L) log p(leaf).

    Both sums are of logarithms, so that nothing is lost where a probability is close to 1.
    """
    inside = np.logaddexp.reduce(leaf_logp[:, target.leaves], axis=1)
    outside = np.logaddexp.reduce(leaf_logp[:, ~target.leaves], axis=1)
    # At most one of them is -inf, unless the row has no probability at all.
    return np.clip(inside - outside, -LIMIT, LIMIT)


def counts(confusion: np.ndarray, target: Target) -> np.ndarray:
    """(..., 4) counts of a target, from (..., L, L) confusion matrices."""
    inside = target.leaves.astype(np.float64)
    rows = np.stack([inside, 1 - inside])
    table = np.einsum("at,...tp,bp->...ab", rows, confusion, rows)  # true x predicted
    return np.stack([table[..., 0, 0], table[..., 1, 0], table[..., 0, 1], table[..., 1, 1]], axis=-1)


def rates(counts: np.ndarray) -> Rates:
    """Sensitivity, specificity and predictive values of a target, from its (..., 4) counts."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    return Rates(_share(tp, tp + fn), _share(tn, tn + fp), _share(tp, tp + fp), _share(tn, tn + fn))


def threshold(values: np.ndarray, positive: np.ndarray, specificity: float) -> float | None:
    """The lowest threshold above which at most 1 - `specificity` of the negatives lie: positive means value >
    threshold.

    None (not estimable) with fewer than 1 / (1 - specificity) negatives: none of them may lie above.

    Args:
        values: (N,) log odds of inner validation, never of the test fold.
        positive: (N,) bool, whether the target is true.
    """
    negatives = np.sort(values[~positive])
    if len(negatives) * (1 - specificity) < 1 - 1e-9:
        return None
    return float(negatives[int(np.ceil(specificity * len(negatives) - 1e-9)) - 1])


def mcc(confusion: np.ndarray) -> np.ndarray:
    """(...) Matthews correlation coefficient of all leaves (Gorodkin 2004), from (..., L, L). 0 where all
    images have one true leaf or one predicted leaf."""
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total, right = true.sum(axis=-1), np.trace(confusion, axis1=-2, axis2=-1)
    covariance = right * total - (true * predicted).sum(axis=-1)
    spread = (total**2 - (true**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return covariance / np.sqrt(np.where(spread > 0, spread, np.inf))


def weighted_kappa(confusion: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(...) Cohen's weighted kappa (1968): 1 - observed / expected disagreement, from (..., L, L).

    Args:
        weights: (L, L) disagreement of two leaves, 0 on the diagonal. The height of their lowest common
            ancestor weighs a mistake by its distance in the tree. Linear and quadratic weights need leaves
            with an order, which the leaves of a tree do not have. With 1 for all mistakes it is Cohen's
            kappa.
    """
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    expected = np.einsum("...t,tp,...p->...", true, weights, predicted)
    observed = np.einsum("...tp,tp->...", confusion, weights)
    return 1 - _share(observed * true.sum(axis=-1), expected)


def mean_cost(confusion: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """(...) mean cost of an image, from (..., L, L) counts and (L, L) costs."""
    return _share(np.einsum("...tp,tp->...", confusion, costs), confusion.sum(axis=(-2, -1)))


def net_benefit(
    true_positives: np.ndarray, false_positives: np.ndarray, total: np.ndarray, probability: np.ndarray
) -> np.ndarray:
    """(...) net benefit at a threshold probability t: TP / n - FP / n x t / (1 - t) (Vickers and Elkin 2006).

    The counts are those of calling positive what has P(target) >= t. Calling none positive has the net
    benefit 0. Calling all positive has all positives as TP and all others as FP.
    """
    odds = probability / (1 - probability)
    return _share(true_positives - false_positives * odds, total)


def recalibrate(x: np.ndarray, positive: np.ndarray) -> Recalibration | None:
    """The maximum-likelihood fit of both models. None (not estimable) where x separates the positives from
    the others, or one of them is missing: the slope would be infinite.

    Args:
        x: (N,) log odds.
        positive: (N,) bool, whether the target is true.
    """
    if positive.all() or not positive.any():
        return None
    if x[positive].min() >= x[~positive].max() or x[positive].max() <= x[~positive].min():
        return None
    ones = np.ones((len(x), 1))
    joint = _logistic(np.column_stack([ones, x]), positive, np.zeros(len(x)))
    alone = _logistic(ones, positive, x)
    return Recalibration(float(joint[1]), float(joint[0]), float(alone[0]))


def recalibration_parts(x: np.ndarray, positive: np.ndarray, fit: Recalibration) -> np.ndarray:
    """(N, 7) contributions of images to score and information of both models at a fit, for `one_step`."""
    parts = []
    for linear, columns in ((fit.joint + fit.slope * x, (1.0, x)), (fit.intercept + x, (1.0,))):
        p = _sigmoid(linear)
        residual, weight = positive - p, p * (1 - p)
        parts += [residual * column for column in columns]
        parts += [weight * (x**power if power else 1.0) for power in range(2 * len(columns) - 1)]
    return np.column_stack(parts)


def one_step(sums: np.ndarray, fit: Recalibration) -> np.ndarray:
    """(..., 2) slope and intercept after one Newton step from `fit` on (..., 7) weighted sums of
    `recalibration_parts`.

    It is the fit of a bootstrap draw without a new fit. With the weights 1 it is the fit itself, as its
    scores are 0.
    """
    of_one, of_x, weight, weight_x, weight_xx, of_alone, weight_alone = np.moveaxis(sums, -1, 0)
    determinant = weight * weight_xx - weight_x**2
    slope = fit.slope + _share(weight * of_x - weight_x * of_one, determinant)
    return np.stack([slope, fit.intercept + _share(of_alone, weight_alone)], axis=-1)


def _logistic(columns: np.ndarray, positive: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(K,) coefficients of a logistic regression, by Newton's method with halved steps."""
    at = np.zeros(columns.shape[1])
    value = _log_likelihood(columns @ at + offset, positive)
    for _ in range(100):
        p = _sigmoid(columns @ at + offset)
        information = (columns * (p * (1 - p))[:, None]).T @ columns
        step = np.linalg.lstsq(information, columns.T @ (positive - p), rcond=None)[0]
        while (new := _log_likelihood(columns @ (at + step) + offset, positive)) < value - 1e-12 * abs(value):
            step = step / 2
        at, value = at + step, new
        if np.abs(step).max() < 1e-10 * (1 + np.abs(at).max()):
            break
    return at


def _log_likelihood(linear: np.ndarray, positive: np.ndarray) -> float:
    return float(-np.logaddexp(0, np.where(positive, -linear, linear)).sum())


def _sigmoid(linear: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -linear))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
