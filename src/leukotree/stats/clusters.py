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
    keys: np.ndarray | None = None
    """(P,) key of the image of a cluster without a patient, "" for a patient. It finds the image again in
    another repeat."""

    @property
    def alone(self) -> int:
        """Number of images without a patient. If some of them have the same unknown patient, an interval is
        too narrow."""
        return int((self.names == "").sum())


def patient_counts(
    patient: Sequence[str],
    true: np.ndarray,
    predicted: np.ndarray,
    n_leaves: int,
    keys: Sequence[str] | None = None,
) -> Clusters:
    """Clusters of N test images, or of other units that belong to patients, such as `metrics.Groups`.

    Counts are means over seeds. So a statistic is that of the mean confusion matrix, and seeds add no
    patients.

    Args:
        patient: N names, "" where unknown.
        true: (N,) leaf indices.
        predicted: (N,) leaf indices, or (S, N) of S seeds.
        keys: N keys of the images. `pool` needs them for images without a patient in several repeats.
    """
    names, cluster = clusters_of(patient)
    counts = confusions(cluster, len(names), true, predicted, n_leaves)
    of_images = None
    if keys is not None:
        unknown = np.asarray(patient, dtype=str) == ""
        of_images = np.concatenate([np.full((names != "").sum(), ""), np.asarray(keys, dtype=str)[unknown]])
    return Clusters(names, counts, strata_of(counts), of_images)


def clusters_of(patient: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(P,) names of the clusters and (N,) int64 cluster of each image: patients in the order of their names,
    then the images without one ("")."""
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
    """(P, L, L) counts of `patient_counts`, from the (N,) clusters of `clusters_of`."""
    predicted = np.atleast_2d(np.asarray(predicted, dtype=np.int64))
    cells = (cluster * n_leaves + np.asarray(true, dtype=np.int64)) * n_leaves + predicted
    shape = (n_clusters, n_leaves, n_leaves)
    return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape) / len(predicted)


def patient_sums(patient: Sequence[str], values: np.ndarray) -> np.ndarray:
    """(P, F) sums over the images of each cluster, in the order of `clusters_of`, from (N, F) values."""
    names, cluster = clusters_of(patient)
    if not len(names):
        return np.zeros((0, values.shape[1]))
    order = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[order], np.arange(len(names)))
    return np.add.reduceat(values[order].astype(np.float64), starts, axis=0)


def pool_sums(parts: Sequence[Clusters], sums: Sequence[np.ndarray], pooled: Clusters) -> np.ndarray:
    """(P, F) sums of the clusters of `pooled`, which is the `pool` of the parts, from the (P, F) sums of each
    part by `patient_sums`. Of a cluster in several repeats it is the mean, as in `pool`."""

    def identities(clusters: Clusters) -> list[tuple[str, str]]:
        keys = np.full(len(clusters.names), "") if clusters.keys is None else clusters.keys
        return list(zip(clusters.names.tolist(), keys.tolist(), strict=True))

    together, of_parts = np.concatenate(list(sums)), [one for part in parts for one in identities(part)]
    if of_parts == identities(pooled):  # one repeat; images without a patient may have no key there
        return together
    place = {identity: index for index, identity in enumerate(identities(pooled))}
    of = np.array([place[identity] for identity in of_parts])
    total = np.zeros((len(pooled.names), together.shape[1]))
    np.add.at(total, of, together)
    return total / np.bincount(of, minlength=len(total))[:, None]


def pool(parts: Sequence[Clusters], repeats: Sequence[int] | None = None) -> Clusters:
    """The clusters of all outer test folds together.

    A patient is one cluster, with the mean of its counts over the repeats that tested it. So repeats add no
    patients, and the bootstrap draws a patient with all its repeats.

    Args:
        repeats: the repeat of each part; None if there is only one.

    Raises InputError for a patient in two folds of a repeat, and ValueError for images in several repeats
    that have neither a patient nor a key.
    """
    of_part = [0] * len(parts) if repeats is None else list(repeats)
    for repeat in dict.fromkeys(of_part):
        _refuse_twice([part for part, number in zip(parts, of_part, strict=True) if number == repeat])
    names = np.concatenate([part.names for part in parts])
    counts = np.concatenate([part.counts for part in parts])
    keys = _keys(parts)
    if len(set(of_part)) < 2:
        return Clusters(names, counts, strata_of(counts), keys)
    if keys is None:
        if (names == "").any():
            raise ValueError("images without a patient cannot be found again in another repeat without keys")
        keys = np.full(len(names), "")
    # Patients come first, as within a part. A name and a key may be equal, so both decide.
    identity = np.stack([names == "", names, keys], axis=1).astype(str)
    _, first, cluster, times = np.unique(
        identity, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.zeros((len(first), *counts.shape[1:]))
    np.add.at(mean, cluster.ravel(), counts)
    mean /= times[:, None, None]
    return Clusters(names[first], mean, strata_of(mean), keys[first])


def _refuse_twice(parts: Sequence[Clusters]) -> None:
    """Raise InputError for a patient in two of these folds."""
    names = np.concatenate([part.names for part in parts])
    patients, times = np.unique(names[names != ""], return_counts=True)
    if (times > 1).any():
        patient = str(patients[times > 1][0])
        raise InputError(
            f"patient {patient!r} is in two test folds; pack into an empty folder and run folds again"
        )


def _keys(parts: Sequence[Clusters]) -> np.ndarray | None:
    """The keys of all parts; None where one has none."""
    keys = [part.keys for part in parts]
    return None if any(of_part is None for of_part in keys) else np.concatenate(keys)  # type: ignore[arg-type]


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
