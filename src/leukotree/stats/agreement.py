"""Agreement of readers, and of a model with them, with intervals over patients.

The values are those of `evaluation.readers`. An image that a reader did not read takes no part in the values
of this reader.

Patients are resampled within the leaves of their labels. Strata by readings would be wrong: a patient whose
readers disagree would always be replaced by another such patient, and the interval would be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leukotree.evaluation import readers
from leukotree.stats.answers import Answers
from leukotree.stats.clusters import (
    Clusters,
    accuracy,
    clusters_of,
    strata_of,
)
from leukotree.stats.resampling import DRAWS, Statistic, bootstrap, finite, interval, intervals, jackknife


class Rated(NamedTuple):
    """P clusters of images as in `Clusters`, with the readings of two raters or more."""

    names: np.ndarray
    """(P,) patients; "" for an image without one."""
    counts: np.ndarray
    """(P, K, K) table of the cluster: counts of two raters, or coincidences of several."""
    labels: np.ndarray
    """(P, L) number of images of each leaf, by their labels."""

    @property
    def clusters(self) -> Clusters:
        """The clusters, with strata by their labels."""
        return Clusters(self.names, self.counts, strata_of(self.labels[..., None]))


class Agreement(NamedTuple):
    """The agreement of two raters on the images that both read."""

    images: int
    patients: int
    """Patients with such images. Images without a patient do not count."""
    share: float
    """Share of equal readings; NaN without images."""
    kappa: float
    """Cohen's; NaN where it is not defined."""
    interval: tuple[float, float] | None
    """The 95 % interval of `kappa` over patients; None where it is not estimable."""


class Closeness(NamedTuple):
    """How much closer a model is to a reader than the other readers are, on the same images."""

    model: float
    """Mean over the other readers of the model's kappa with the reader, on the images that both read."""
    others: float
    """Mean of their own kappa with the reader, on the same images."""
    interval: tuple[float, float] | None
    """The 95 % interval of the difference, over patients; None where it is not estimable."""


def pair(
    patient: Sequence[str], label: np.ndarray, first: np.ndarray, second: Answers, n_categories: int
) -> Rated:
    """Two raters on the images that both read, by patient.

    Args:
        patient: N names, "" where unknown.
        label: (N,) leaf indices.
        first: (N,) codes.
        second: the answers of a model, or the codes of a reader by `Answers.once`.
    """
    read = first != readers.UNREAD
    answered = np.zeros(len(first), dtype=bool)
    answered[second.image[second.code != readers.UNREAD]] = True
    read &= answered
    names, cluster = _clusters(patient, read)
    counts = second.tables(cluster, len(names), first, n_categories, read)
    return Rated(names, counts, _labels(cluster, len(names), label, read))


def agreement(rated: Rated) -> Agreement:
    """The agreement of two raters, from their `pair`."""
    table = rated.counts.sum(axis=0)
    return Agreement(
        images=round(float(table.sum())),
        patients=int((rated.names != "").sum()),
        share=float(accuracy(table)),
        kappa=float(readers.cohen(table)),
        interval=_interval(rated.clusters, readers.cohen),
    )


def alpha_interval(
    patient: Sequence[str], label: np.ndarray, codes: np.ndarray, n_categories: int
) -> tuple[float, float] | None:
    """The 95 % interval of Krippendorff's alpha over patients, from N names, (N,) leaf indices and (N, R)
    codes. None where it is not estimable."""
    several = (codes != readers.UNREAD).sum(axis=1) > 1
    names, cluster = _clusters(patient, several)
    counts = np.zeros((len(names), n_categories, n_categories))
    np.add.at(counts, cluster[several], readers.coincidences(codes[several], n_categories))
    rated = Rated(names, counts, _labels(cluster, len(names), label, several))
    return _interval(rated.clusters, readers.krippendorff)


def closeness(
    patient: Sequence[str],
    label: np.ndarray,
    reader: np.ndarray,
    others: np.ndarray,
    model: Answers,
    n_categories: int,
    draws: int = DRAWS,
) -> Closeness | None:
    """A model with a reader beside other readers with this reader, on the same images and with the same draws
    of patients. None if no image has a reading of this reader and of another one.

    Args:
        patient, label, reader: as in `pair`; reader is its `first`.
        others: (N, O) codes of the other readers.
        model: the answers of the model, all of them categories.
    """
    answered = np.zeros(len(reader), dtype=bool)
    answered[model.image] = True
    both = (reader != readers.UNREAD)[:, None] & (others != readers.UNREAD) & answered[:, None]
    used = [column for column in range(others.shape[1]) if both[:, column].any()]
    if not used:
        return None
    read = both.any(axis=1)
    names, cluster = _clusters(patient, read)
    raters = [(model, column) for column in used]
    raters += [(Answers.once(others[:, column]), column) for column in used]
    counts = np.array(
        [rater.tables(cluster, len(names), reader, n_categories, both[:, column]) for rater, column in raters]
    )  # (2 x O, P, K, K): the model with the reader, then the others with the reader
    kappa = readers.cohen(counts.sum(axis=1)).reshape(2, -1).mean(axis=1)
    strata = strata_of(_labels(cluster, len(names), label, read)[..., None])
    bounds = None
    if np.bincount(strata).min() > 1:
        samples, left_out = (
            np.subtract(*part.reshape(2, len(used), -1).mean(axis=1))
            for part in (
                bootstrap(counts, strata, readers.cohen, draws),
                jackknife(counts, strata, readers.cohen),
            )
        )
        bounds = finite(interval(samples, left_out, strata))
    return Closeness(float(kappa[0]), float(kappa[1]), bounds)


def _clusters(patient: Sequence[str], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) names of the clusters of some (N,) bool images, and the (N,) cluster of each image."""
    names, of_some = clusters_of(np.asarray(patient, dtype=str)[images].tolist())
    cluster = np.zeros(len(images), dtype=np.int64)
    cluster[images] = of_some
    return names, cluster


def _labels(cluster: np.ndarray, n_clusters: int, label: np.ndarray, images: np.ndarray) -> np.ndarray:
    """(P, L) number of images of each leaf, of some (N,) bool images in (N,) clusters."""
    n_leaves = int(label.max(initial=-1)) + 1
    cells = cluster[images] * n_leaves + label[images]
    return np.bincount(cells, minlength=n_clusters * n_leaves).reshape(n_clusters, n_leaves)


def _interval(clusters: Clusters, statistic: Statistic) -> tuple[float, float] | None:
    return finite(intervals([clusters], statistic)[0]) if len(clusters.names) else None
