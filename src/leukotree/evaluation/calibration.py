"""Calibration: whether a probability is the share of correct predictions, and temperature scaling to correct
it.

Temperatures are fitted on predictions of inner validation folds only. Fitted on test predictions they would
make the test score too good.

In all functions `target` is (n,) class indices and `probability` (n, K).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from leukotree.evaluation import decide
from leukotree.evaluation.metrics import FLOOR
from leukotree.taxonomy import Taxonomy

BINS = 15
"""Most bins of a reliability curve."""
BOUNDS = (0.05, 20.0)
"""Range of temperatures in `fit`. For predictions without an error the lower bound is the best."""


@dataclass(frozen=True)
class Reliability:
    """Reliability of the most probable class in B bins of equal mass, see `bins_of`."""

    count: np.ndarray
    """(B,) number of samples, at least 1."""
    confidence: np.ndarray
    """(B,) mean probability."""
    accuracy: np.ndarray
    """(B,) share of correct samples."""


class Gaps(NamedTuple):
    """What P clusters (patients) have in B bins of equal mass. `squared_error` is a function of its sums."""

    samples: np.ndarray
    """(P, B) number of samples."""
    gap: np.ndarray
    """(P, B) sum of (1 if correct, else 0) - confidence."""


def fit(true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy) -> dict[str, float]:
    """Decision -> temperature T in `BOUNDS` that minimises the negative log-likelihood of softmax(log p / T)
    (Guo et al. 2017).

    A decision is fitted on the samples whose true leaf is below it. Without samples T is 1.

    Args:
        true: (N,) leaf indices.
        logp: (N, E) log p(child | parent) of inner validation.
    """
    return {
        node: _temperature(target, logs) for node, target, logs in decide.at_decisions(true, logp, taxonomy)
    }


def apply(logp: np.ndarray, taxonomy: Taxonomy, temperatures: Mapping[str, float]) -> np.ndarray:
    """(N, E) float64: log p of each decision, divided by its temperature and normalised over the siblings.

    The order of siblings does not change, and so the greedy leaf does not. Other rules may decide
    differently.
    """
    from scipy.special import log_softmax

    scaled = np.array(logp, dtype=np.float64)
    for node in taxonomy.decisions:
        columns = taxonomy.columns[node]
        scaled[:, columns] = log_softmax(scaled[:, columns] / temperatures[node], axis=1)
    return scaled


def bins_of(confidence: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """(n,) bin of each sample: at most BINS bins of about equally many samples, by the quantiles of the
    confidence.

    Equal confidences are in one bin. A bin with samples of fewer than FLOOR clusters joins the next one, and
    the last such bin joins the one before: the spread between clusters must be known in each bin.

    Args:
        confidence: (n,) probability of the most probable class.
        cluster: (n,) index of each sample's cluster, from 0.
    """
    if len(confidence) == 0:
        return np.zeros(0, dtype=np.int64)
    # Samples as cuts, so that the same samples twice (two seeds) have the same bins.
    cuts = np.unique(np.quantile(confidence, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    at = np.searchsorted(cuts, confidence, side="left")
    inside = np.zeros((BINS, int(cluster.max()) + 1), dtype=bool)
    inside[at, cluster] = True
    joined, clusters, number = np.zeros(BINS, dtype=np.int64), np.zeros(inside.shape[1], dtype=bool), 0
    for place in range(BINS):
        joined[place] = number
        clusters = clusters | inside[place]
        if clusters.sum() >= FLOOR:
            clusters, number = np.zeros_like(clusters), number + 1
    return np.minimum(joined, max(number - 1, 0))[at]


def gaps(target: np.ndarray, probability: np.ndarray, cluster: np.ndarray | None = None) -> Gaps:
    """The gaps between accuracy and confidence of the most probable class, of each cluster and bin.

    cluster: (n,) index of each sample's cluster, from 0. None: each sample is a cluster.
    """
    cluster = np.arange(len(target)) if cluster is None else cluster
    confidence, correct = _confidence(target, probability)
    at = bins_of(confidence, cluster)
    shape = (int(cluster.max(initial=-1)) + 1, int(at.max(initial=-1)) + 1)
    samples, gap = (
        np.bincount(cluster * shape[1] + at, weights, minlength=int(np.prod(shape))).reshape(shape)
        for weights in (None, correct - confidence)
    )
    return Gaps(samples.astype(np.float64), gap)


def squared_error(samples: np.ndarray, gap: np.ndarray, own: np.ndarray, own_gap: np.ndarray) -> np.ndarray:
    """(...) debiased squared calibration error: the mean over bins, weighted by samples, of the estimated
    square of the bin's expected gap. It is below 0 in about half of the studies of a calibrated model.

    The plug-in estimate, the square of the mean gap, is too large by the variance of that mean. So only
    products of the gaps of two different clusters count: (S^2 - sum s_p^2) / (N^2 - sum n_p^2), with the sums
    s_p of the gaps and the numbers n_p of samples of a cluster, and their totals S and N. If each sample is a
    cluster and a bin has one confidence, this is the debiased estimator of Kumar, Liang and Ma (2019,
    "Verified uncertainty calibration", section 5): gap^2 - accuracy (1 - accuracy) / (n - 1). The samples
    of one patient are alike, so their estimator would subtract too little. A bin with one cluster has no such
    product and is left out. NaN where no bin has any.

    Args:
        samples: (..., B) N, the number of samples in each bin.
        gap: (..., B) S.
        own: (..., B) the sum of n_p^2 over clusters.
        own_gap: (..., B) the sum of s_p^2.
    """
    pairs = samples**2 - own
    known = pairs > 1e-9 * np.maximum(own, 1)
    square = np.where(known, gap**2 - own_gap, 0) / np.where(known, pairs, 1)
    weights = np.where(known, samples, 0)
    total = weights.sum(axis=-1)
    return (weights * square).sum(axis=-1) / np.where(total > 0, total, np.nan)


def root(squared: np.ndarray | float) -> np.ndarray:
    """The square root, as an error in the unit of probabilities. 0 below 0, where no error is seen."""
    return np.sqrt(np.maximum(squared, 0))


def ece(target: np.ndarray, probability: np.ndarray, cluster: np.ndarray | None = None) -> float:
    """Expected calibration error of the most probable class: root mean square (L2) over bins of equal mass,
    debiased, see `squared_error`. NaN (not estimable) with fewer than FLOOR clusters.

    Like every error of bins it misses what cancels inside a bin. Its interval is in
    `leukotree.stats.reliability`.
    """
    return error(gaps(target, probability, cluster))


def error(of: Gaps) -> float:
    """`ece` from the gaps of the clusters."""
    return float("nan") if len(of.samples) < FLOOR else float(root(squared_error(*sums(of))))


def sums(of: Gaps) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of `squared_error`, each (B,)."""
    return (
        of.samples.sum(axis=0),
        of.gap.sum(axis=0),
        (of.samples**2).sum(axis=0),
        (of.gap**2).sum(axis=0),
    )


def reliability(
    target: np.ndarray, probability: np.ndarray, cluster: np.ndarray | None = None
) -> Reliability:
    """The reliability curve of the most probable class, in the bins of `ece`. cluster: as for `gaps`."""
    confidence, correct = _confidence(target, probability)
    at = bins_of(confidence, np.arange(len(target)) if cluster is None else cluster)
    count, sum_p, sum_correct = (np.bincount(at, weights) for weights in (None, confidence, correct))
    return Reliability(count, sum_p / count, sum_correct / count)


def _confidence(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) probability of the most probable class, and (n,) 1.0 where it is the true one."""
    if len(target) == 0:
        return np.zeros(0), np.zeros(0)
    return probability.max(axis=1), (probability.argmax(axis=1) == target).astype(np.float64)


def brier(target: np.ndarray, probability: np.ndarray) -> float:
    """Brier score, summed over the classes, in 0..2: mean of sum_k (p_k - [k is true])^2 (Brier 1950).

    With two classes it is twice scikit-learn's `brier_score_loss`. NaN without samples.
    """
    if len(target) == 0:
        return float("nan")
    return float(((probability - np.eye(probability.shape[1])[target]) ** 2).sum(axis=1).mean())


def _temperature(target: np.ndarray, logs: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    # A true class with probability 0 has an infinite loss at every temperature.
    possible = logs[np.arange(len(target)), target] > -np.inf
    target, logs = target[possible], logs[possible]
    if len(target) == 0:
        return 1.0
    rows = np.arange(len(target))
    # The loss is convex in 1 / T, so there is one minimum.
    best = minimize_scalar(
        lambda log_t: -log_softmax(logs / np.exp(log_t), axis=1)[rows, target].mean(),
        bounds=np.log(BOUNDS),
        method="bounded",
    )
    return float(np.exp(best.x))
