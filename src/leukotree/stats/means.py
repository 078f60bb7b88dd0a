"""Means over images, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leukotree.stats.clusters import patient_counts, patient_sums
from leukotree.stats.sums import Sums, intervals_of


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
    parts = {
        "sum": patient_sums(patient, np.where(known, values, 0.0)),
        "count": patient_sums(patient, known.astype(float)),
    }
    found = _quotients({name: part.sum(axis=0) for name, part in parts.items()})
    clusters = (parts["count"] > 0).sum(axis=0)
    return [
        Mean(float(value), _interval(patient, leaf, values[:, [column]], n_leaves), int(count), int(n))
        for column, (value, count, n) in enumerate(zip(found, known.sum(axis=0), clusters, strict=True))
    ]


def _interval(
    patient: Sequence[str], leaf: np.ndarray, values: np.ndarray, n_leaves: int
) -> tuple[float, float] | None:
    """The interval of one column, over the clusters that have a value of it."""
    known = ~np.isnan(values[:, 0])
    names = np.asarray(patient, dtype=str)[known].tolist()
    if not names:
        return None
    true = np.asarray(leaf)[known]
    strata = patient_counts(names, true, true, n_leaves).strata
    parts = {
        "sum": patient_sums(names, values[known]),
        "count": patient_sums(names, np.ones((len(names), 1))),
    }
    return intervals_of(parts, strata, _quotients)[0]


def _quotients(sums: Sums) -> np.ndarray:
    count = sums["count"]
    return np.divide(sums["sum"], count, out=np.full(count.shape, np.nan), where=count > 0)
