"""Calibration: how far a probability can be taken at its word, and temperature scaling that mends it.

Temperatures are fitted on predictions of inner validation folds only. Fitted on test predictions they would
flatter the test.

`target` is (n,) class indices and `probability` (n, K) throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from leukotree.evaluation import decide
from leukotree.taxonomy import Taxonomy

BINS = 15
BOUNDS = (0.05, 20.0)
"""Temperatures that `fit` looks among. Predictions without an error have no best one: the lower bound comes
out."""


@dataclass(frozen=True)
class Reliability:
    """B bins of equal width over the probability of the most probable class."""

    edges: np.ndarray
    """(B + 1,). A bin holds its lower edge; the last one its upper edge too."""
    count: np.ndarray
    """(B,) samples."""
    confidence: np.ndarray
    """(B,) their mean probability; NaN in an empty bin."""
    accuracy: np.ndarray
    """(B,) share of them that is right; NaN in an empty bin."""


def fit(true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy) -> dict[str, float]:
    """Decision -> temperature T of least negative log-likelihood of softmax(log p / T) (Guo et al. 2017),
    within `BOUNDS`.

    Each decision is fitted on the samples whose true leaf (true, (N,) indices) lies below it; one without
    samples keeps 1. logp: (N, E) of inner validation.
    """
    return {
        node: _temperature(target, logs) for node, target, logs in decide.at_decisions(true, logp, taxonomy)
    }


def apply(logp: np.ndarray, taxonomy: Taxonomy, temperatures: Mapping[str, float]) -> np.ndarray:
    """(N, E) float64: each decision's log p divided by its temperature and normalised again among the
    siblings.

    The order of siblings stays, and with it the greedy leaf; the other rules may decide differently.
    """
    from scipy.special import log_softmax

    scaled = np.array(logp, dtype=np.float64)
    for node in taxonomy.decisions:
        columns = taxonomy.columns[node]
        scaled[:, columns] = log_softmax(scaled[:, columns] / temperatures[node], axis=1)
    return scaled


def reliability(target: np.ndarray, probability: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability curve of the most probable class."""
    edges = np.linspace(0, 1, bins + 1)
    confidence = probability.max(axis=1)
    right = probability.argmax(axis=1) == target
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    count, sum_p, sum_right = (
        np.bincount(place, weights, minlength=bins) for weights in (None, confidence, right)
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return Reliability(edges, count, sum_p / count, sum_right / count)


def ece(target: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean |accuracy - confidence| over the bins, weighted by their samples (Guo
    et al. 2017)."""
    if len(target) == 0:
        return float("nan")
    curve = reliability(target, probability, bins)
    return float(np.nansum(curve.count * np.abs(curve.accuracy - curve.confidence)) / len(target))


def brier(target: np.ndarray, probability: np.ndarray) -> float:
    """Brier score summed over the classes, 0..2 (Brier 1950): mean of sum_k (p_k - [k is true])^2.

    For two classes twice what scikit-learn's `brier_score_loss` gives for one of them. NaN without samples.
    """
    if len(target) == 0:
        return float("nan")
    return float(((probability - np.eye(probability.shape[1])[target]) ** 2).sum(axis=1).mean())


def _temperature(target: np.ndarray, logs: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    possible = (
        logs[np.arange(len(target)), target] > -np.inf
    )  # what was ruled out is lost at every temperature
    target, logs = target[possible], logs[possible]
    if len(target) == 0:
        return 1.0
    rows = np.arange(len(target))
    # Convex in 1 / T, so that the minimum is the only one.
    found = minimize_scalar(
        lambda log_t: -log_softmax(logs / np.exp(log_t), axis=1)[rows, target].mean(),
        bounds=np.log(BOUNDS),
        method="bounded",
    )
    return float(np.exp(found.x))
