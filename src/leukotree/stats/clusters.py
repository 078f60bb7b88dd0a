"""Test images gathered by patient: a confusion matrix each, the strata they are drawn in, and scores of
confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leukotree.errors import InputError


class Clusters(NamedTuple):
    """P clusters of test images of one arm. A cluster is a patient; an image without a patient is a cluster
    of its own."""

    names: np.ndarray
    """(P,) patients; "" for each image without one. The same images give the same order in every arm."""
    counts: np.ndarray
    """(P, L, L) images, rows true leaves, columns predicted ones; a mean over seeds, so maybe fractional."""
    strata: np.ndarray
    """(P,) int64 from 0: clusters that stand in for each other in the bootstrap, see `strata_of`."""

    @property
    def alone(self) -> int:
        """How many images have no patient. If any, an interval is too narrow where such images share an
        unknown patient."""
        return int((self.names == "").sum())


def patient_counts(
    patient: Sequence[str], true: np.ndarray, predicted: np.ndarray, n_leaves: int
) -> Clusters:
    """Clusters of N test images, or of any other units that belong to patients, such as `metrics.Groups`.

    Args: patient: N names, "" where unknown. true: (N,) leaf indices. predicted: (N,) leaf indices, or (S, N)
        of S seeds. Counts are averaged over seeds: a statistic is then that of the mean confusion matrix, and
        seeds add no patients.
    """
    names, true = np.asarray(patient, dtype=str), np.asarray(true, dtype=np.int64)
    predicted = np.atleast_2d(np.asarray(predicted, dtype=np.int64))
    known = names != ""
    found, of_known = np.unique(names[known], return_inverse=True)
    alone = int((~known).sum())
    cluster = np.empty(len(names), dtype=np.int64)
    cluster[known], cluster[~known] = of_known, len(found) + np.arange(alone)
    cells = (cluster * n_leaves + true) * n_leaves + predicted
    shape = (len(found) + alone, n_leaves, n_leaves)
    counts = np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape) / len(predicted)
    return Clusters(np.concatenate([found, np.full(alone, "")]), counts, strata_of(counts))


def pool(parts: Sequence[Clusters]) -> Clusters:
    """The clusters of all outer test folds as one; each patient is tested in one of them, or InputError."""
    names = np.concatenate([part.names for part in parts])
    patients, times = np.unique(names[names != ""], return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"patient {str(patients[times > 1][0])!r} is in two test folds; pack into an empty folder and run folds again"
        )
    counts = np.concatenate([part.counts for part in parts])
    return Clusters(names, counts, strata_of(counts))


def strata_of(counts: np.ndarray) -> np.ndarray:
    """(P, L, L) -> (P,) int64 from 0: a cluster's stratum is the set of leaves that its images truly are of.

    A set that only one cluster has would have no spread. It joins the stratum of the set that is most like it
    (largest intersection over union), of equally like ones that with most clusters, then the first.
    """
    sets, own, size = np.unique(counts.sum(axis=-1) > 0, axis=0, return_inverse=True, return_counts=True)
    common = sets.astype(np.int64) @ sets.T.astype(np.int64)
    alike = common / np.maximum(sets.sum(axis=1)[:, None] + sets.sum(axis=1) - common, 1)
    np.fill_diagonal(alike, -1)
    stratum = np.arange(len(sets))
    for lonely in np.flatnonzero(size == 1):
        clusters = np.bincount(stratum, weights=size)[stratum]  # in the stratum of each set, by now
        if clusters[lonely] == 1:
            stratum[lonely] = stratum[np.lexsort((-clusters, -alike[lonely]))[0]]
    return np.unique(stratum[own.ravel()], return_inverse=True)[1]


def patients_per_leaf(clusters: Clusters) -> np.ndarray:
    """(L,) int64: patients with images that truly are of a leaf; under `metrics.FLOOR` a score of that leaf
    is not estimable. An image without a patient is none."""
    return (clusters.counts[clusters.names != ""].sum(axis=-1) > 0).sum(axis=0)


def voted_right(clusters: Clusters) -> np.ndarray:
    """(P,) bool: whether the mode of a patient's predictions, over images and seeds, is its leaf.

    A tie goes to the first leaf in preorder. A patient with several leaves has a vote for each, and is right
    if these are for more than half of its images.
    """
    images = clusters.counts.sum(axis=-1)
    right = clusters.counts.argmax(axis=-1) == np.arange(images.shape[1])
    return (images * right).sum(axis=1) > images.sum(axis=1) / 2


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """(..., L, L) -> (...): share of the diagonal; NaN without images."""
    total = confusion.sum(axis=(-2, -1))
    return np.trace(confusion, axis1=-2, axis2=-1) / np.where(total > 0, total, np.nan)


def recall(confusion: np.ndarray) -> np.ndarray:
    """(..., L, L) -> (..., L): share of a leaf's images that were given it; 0 without images, as in
    `metrics.per_leaf`."""
    return _quotient(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def f1(confusion: np.ndarray) -> np.ndarray:
    """(..., L, L) -> (..., L): F1 of each leaf; 0 for one that has neither images nor predictions, as in
    `metrics.per_leaf`."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _quotient(2 * right, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """(..., L, L) -> (...): mean F1 over all leaves, as `metrics.macro_f1`."""
    return f1(confusion).mean(axis=-1)


def _quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.where(whole > 0, whole, 1)
