"""The calibration error of pooled test images, with its interval over patients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from leukotree.evaluation import calibration
from leukotree.evaluation.metrics import FLOOR
from leukotree.stats.clusters import strata_of
from leukotree.stats.resampling import DRAWS, interval, weights, without_each


class CalibrationError(NamedTuple):
    """The debiased expected calibration error, see `calibration.ece`."""

    value: float
    """NaN where it is not estimable."""
    interval: tuple[float, float] | None
    """95 % interval of `value` by the bootstrap over clusters; None where it is not estimable."""


def calibration_error(
    target: np.ndarray, probability: np.ndarray, cluster: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> CalibrationError:
    """The calibration error and its interval. Clusters are resampled as in `resampling`, in strata of the
    clusters' sets of classes. The bins stay those of all samples.

    Two samples of one cluster are never a pair, also if a draw has the cluster twice. So the resampled errors
    are centred at the estimate, and not at the plug-in estimate. Near 0 their spread is larger than that of
    the estimate, and the interval covers more often than it says (tests/stats/test_reliability.py).

    Args:
        target: (n,) class indices.
        probability: (n, K).
        cluster: (n,) index of each sample's patient, from 0. Several seeds of an image are in one cluster.
    """
    of = calibration.gaps(target, probability, cluster)
    if len(of.samples) < FLOOR:
        return CalibrationError(float("nan"), None)
    strata = _strata(target, cluster, probability.shape[1])
    bounds = interval(_samples(of, strata, draws, seed), _left_out(of, strata), strata)
    value = calibration.error(of)
    if bounds is None:
        return CalibrationError(value, None)
    low, high = (float(calibration.root(bound)) for bound in bounds)
    return CalibrationError(value, (low, high))


def _strata(target: np.ndarray, cluster: np.ndarray, classes: int) -> np.ndarray:
    """(P,) stratum of each cluster: the set of classes of its samples."""
    counts = np.bincount(cluster * classes + target, minlength=(int(cluster.max()) + 1) * classes)
    return strata_of(counts.reshape(-1, classes, 1))


def _samples(of: calibration.Gaps, strata: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws,) squared errors of resampled clusters."""
    both, squares = np.hstack([of.samples, of.gap]), np.hstack([of.samples**2, of.gap**2])
    parts = []
    for drawn in weights(strata, draws, seed):
        samples, gap = np.split(drawn @ both, 2, axis=1)
        parts.append(calibration.squared_error(samples, gap, *np.split(drawn**2 @ squares, 2, axis=1)))
    squared = np.concatenate(parts)
    return squared[~np.isnan(squared)]


def _left_out(of: calibration.Gaps, strata: np.ndarray) -> np.ndarray:
    """(P,) squared errors without each cluster, as `resampling.jackknife`."""
    squared = calibration.squared_error(
        without_each(of.samples, strata),
        without_each(of.gap, strata),
        without_each(of.samples**2, strata, power=2),
        without_each(of.gap**2, strata, power=2),
    )
    # Without a cluster, no bin may have a pair. Then the cluster is given no influence.
    return np.where(np.isnan(squared), calibration.squared_error(*calibration.sums(of)), squared)
