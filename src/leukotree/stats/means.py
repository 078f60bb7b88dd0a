"""Means over images, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leukotree.stats.clusters import patient_counts, patient_sums
from leukotree.stats.sums import intervals_of


class Mean(NamedTuple):
    """The mean of a value over images."""

    value: float
    """NaN where no image has a value."""
    interval: tuple[float, float] | None
    """95 %, over patients within leaves; None where it is not estimable."""
    images: int
    """Those with a value."""
    clusters: int
    """Patients with such an image, and images without a patient."""


def means(patient: Sequence[str], leaf: np.ndarray, values: np.ndarray, n_leaves: int) -> list[Mean]:
    """The mean of each column of values, with the draws of `resampling`: a patient is drawn with all images.

    Args:
        patient: N names, "" where unknown. Such an image is a cluster of its own.
        leaf: (N,) true leaves, from 0.
        values: (N, K), NaN where an image has none. A difference of two values is paired by image.
    """
    known = ~np.isnan(values)
    names = np.asarray(patient, dtype=str)
    found: list[Mean | None] = [None] * values.shape[1]
    # Columns that the same images have are drawn together.
    patterns, of_column = np.unique(known, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(of_column.ravel() == number)
        there = names[pattern].tolist()
        part = _known(there, np.asarray(leaf)[pattern], values[pattern][:, columns], n_leaves)
        for column, mean in zip(columns.tolist(), part, strict=True):
            found[column] = mean
    return [mean for mean in found if mean is not None]


def _known(patient: list[str], leaf: np.ndarray, values: np.ndarray, n_leaves: int) -> list[Mean]:
    """As `means`, where every image has a value of each column."""
    if not patient:
        return [Mean(float("nan"), None, 0, 0)] * values.shape[1]
    parts = {
        "sum": patient_sums(patient, values),
        "count": patient_sums(patient, np.ones((len(patient), 1))),
    }
    strata = patient_counts(patient, leaf, leaf, n_leaves).strata
    bounds = intervals_of(parts, strata, lambda sums: sums["sum"] / sums["count"])
    return [
        Mean(float(value), interval, len(patient), len(strata))
        for value, interval in zip(values.mean(axis=0), bounds, strict=True)
    ]
