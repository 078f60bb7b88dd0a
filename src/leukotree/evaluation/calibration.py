"""Calibration: whether a probability is the share of correct predictions, and temperature scaling to correct
it.

Temperatures are fitted on predictions of inner validation folds only. Fitted on test predictions they would
make the test score too good.

In all functions `target` is (n,) class indices and `probability` (n, K).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from leukotree.evaluation import decide
from leukotree.taxonomy import Taxonomy

BINS = 15
BOUNDS = (0.05, 20.0)
"""Range of temperatures in `fit`. For predictions without an error the lower bound is the best."""


@dataclass(frozen=True)
class Reliability:
    """Reliability in B bins of equal width of the probability of the most probable class."""

    edges: np.ndarray
    """(B + 1,). A bin includes its lower edge. The last one also includes its upper edge."""
    count: np.ndarray
    """(B,) number of samples."""
    confidence: np.ndarray
    """(B,) mean probability; NaN in an empty bin."""
    accuracy: np.ndarray
    """(B,) share of correct samples; NaN in an empty bin."""


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


def reliability(target: np.ndarray, probability: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability of the most probable class."""
    edges = np.linspace(0, 1, bins + 1)
    confidence = probability.max(axis=1)
    correct = probability.argmax(axis=1) == target
    bin_of = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    count, sum_p, sum_correct = (
        np.bincount(bin_of, weights, minlength=bins) for weights in (None, confidence, correct)
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return Reliability(edges, count, sum_p / count, sum_correct / count)


def ece(target: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean of |accuracy - confidence| over the bins, weighted by their numbers of
    samples (Guo et al. 2017). NaN without samples."""
    if len(target) == 0:
        return float("nan")
    curve = reliability(target, probability, bins)
    return float(np.nansum(curve.count * np.abs(curve.accuracy - curve.confidence)) / len(target))


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
