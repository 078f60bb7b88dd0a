"""Test images by patient: a confusion matrix for each, the strata of the bootstrap, and scores of confusion
matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leukotree.errors import InputError


class Clusters(NamedTuple):
    """P clusters of test images of one arm. A cluster has the images of a patient, or one image without a
    patient."""

    names: np.ndarray
    """(P,) patients; "" for an image without one. The same images have the same order in every arm."""
    counts: np.ndarray
    """(P, L, L) number of images: rows are true leaves, columns predicted ones. A mean over seeds, so it may
    be fractional."""
    strata: np.ndarray
    """(P,) int64 from 0: the bootstrap draws clusters within a stratum, see `strata_of`."""

    @property
    def alone(self) -> int:
        """Number of images without a patient. If some of them have the same unknown patient, an interval is
        too narrow."""
        return int((self.names == "").sum())


def patient_counts(
    patient: Sequence[str], true: np.ndarray, predicted: np.ndarray, n_leaves: int
) -> Clusters:
    """Clusters of N test images, or of other units that belong to patients, such as `metrics.Groups`.

    Counts are means over seeds. So a statistic is that of the mean confusion matrix, and seeds add no
    patients.

    Args:
        patient: N names, "" where unknown.
        true: (N,) leaf indices.
        predicted: (N,) leaf indices, or (S, N) of S seeds.
    """
    names, cluster = cluster_of(patient)
    counts = confusions(cluster, len(names), true, predicted, n_leaves)
    return Clusters(names, counts, strata_of(counts))


def cluster_of(patient: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(P,) names of the clusters as in `Clusters`, and the (N,) int64 cluster of each of N units."""
    names = np.asarray(patient, dtype=str)
    known = names != ""
    patients, of_known = np.unique(names[known], return_inverse=True)
    alone = int((~known).sum())
    cluster = np.empty(len(names), dtype=np.int64)
    cluster[known], cluster[~known] = of_known, len(patients) + np.arange(alone)
    return np.concatenate([patients, np.full(alone, "")]), cluster


def confusions(
    cluster: np.ndarray, n_clusters: int, true: np.ndarray, predicted: np.ndarray, n_leaves: int
) -> np.ndarray:
    """(P, L, L) counts of `patient_counts`, from the (N,) clusters of `cluster_of`."""
    predicted = np.atleast_2d(np.asarray(predicted, dtype=np.int64))
    cells = (cluster * n_leaves + np.asarray(true, dtype=np.int64)) * n_leaves + predicted
    shape = (n_clusters, n_leaves, n_leaves)
    return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape) / len(predicted)


def pool(parts: Sequence[Clusters]) -> Clusters:
    """The clusters of all outer test folds together. Raises InputError for a patient in two folds."""
    names = np.concatenate([part.names for part in parts])
    patients, times = np.unique(names[names != ""], return_counts=True)
    if (times > 1).any():
        patient = str(patients[times > 1][0])
        raise InputError(
            f"patient {patient!r} is in two test folds; pack into an empty folder and run folds again"
        )
    counts = np.concatenate([part.counts for part in parts])
    return Clusters(names, counts, strata_of(counts))


def strata_of(counts: np.ndarray) -> np.ndarray:
    """(P,) int64 from 0, from (P, L, L) counts: the stratum of a cluster is the set of its images' true
    leaves.

    A stratum of one cluster would have no spread. It joins the stratum with the most similar set (largest
    intersection over union). Of equally similar ones it joins that with most clusters, then the first.
    """
    if not len(counts):
        return np.empty(0, dtype=np.int64)
    sets, own, size = np.unique(counts.sum(axis=-1) > 0, axis=0, return_inverse=True, return_counts=True)
    common = sets.astype(np.int64) @ sets.T.astype(np.int64)
    similarity = common / np.maximum(sets.sum(axis=1)[:, None] + sets.sum(axis=1) - common, 1)
    np.fill_diagonal(similarity, -1)
    stratum = np.arange(len(sets))
    for single in np.flatnonzero(size == 1):
        clusters = np.bincount(stratum, weights=size)[stratum]  # now in the stratum of each set
        if clusters[single] == 1:
            stratum[single] = stratum[np.lexsort((-clusters, -similarity[single]))[0]]
    return np.unique(stratum[own.ravel()], return_inverse=True)[1]


def patients_per_leaf(clusters: Clusters) -> np.ndarray:
    """(L,) int64: number of patients with images of each true leaf. With fewer than `metrics.FLOOR` a score
    of the leaf is not estimable. Images without a patient do not count."""
    return (clusters.counts[clusters.names != ""].sum(axis=-1) > 0).sum(axis=0)


def majority_is_correct(clusters: Clusters) -> np.ndarray:
    """(P,) bool: whether the most frequent prediction of a patient, over images and seeds, is its leaf.

    Of equally frequent leaves the first in preorder wins. A patient with several leaves has one prediction
    for each, and is correct if these are correct for more than half of its images.
    """
    images = clusters.counts.sum(axis=-1)
    correct = clusters.counts.argmax(axis=-1) == np.arange(images.shape[1])
    return (images * correct).sum(axis=1) > images.sum(axis=1) / 2


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """(...) accuracy, from (..., L, L): share of the diagonal; NaN without images."""
    total = confusion.sum(axis=(-2, -1))
    return np.trace(confusion, axis1=-2, axis2=-1) / np.where(total > 0, total, np.nan)


def recall(confusion: np.ndarray) -> np.ndarray:
    """(..., L) recall of each leaf, from (..., L, L); 0 without images, as in `metrics.per_leaf`."""
    return _quotient(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def f1(confusion: np.ndarray) -> np.ndarray:
    """(..., L) F1 of each leaf, from (..., L, L); 0 without images and predictions, as in
    `metrics.per_leaf`."""
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _quotient(2 * correct, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """(...) mean F1 over all leaves, from (..., L, L), as `metrics.macro_f1`."""
    return f1(confusion).mean(axis=-1)


def _quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.where(whole > 0, whole, 1)
