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
from leukotree.stats.clusters import (
    Clusters,
    accuracy,
    clusters_of,
    confusions,
    strata_of,
)
from leukotree.stats.resampling import DRAWS, Statistic, bootstrap, interval, intervals, jackknife


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


class ReadFold(NamedTuple):
    """The readings of N images of one test fold, and the answers of one arm."""

    patient: Sequence[str]
    """N names, "" where unknown."""
    label: np.ndarray
    """(N,) leaf indices."""
    reader: np.ndarray
    """(N,) codes of one reader."""
    others: np.ndarray
    """(N, O) codes of the other readers."""
    model: np.ndarray
    """(S, N) codes of S seeds."""


class Closeness(NamedTuple):
    """How much closer a model is to a reader than the other readers are, on the same images."""

    model: float
    """Mean over the other readers of the model's kappa with the reader, on the images that both read."""
    others: float
    """Mean of their own kappa with the reader, on the same images."""
    interval: tuple[float, float] | None
    """The 95 % interval of the difference, over patients; None where it is not estimable."""


def pair(
    patient: Sequence[str], label: np.ndarray, first: np.ndarray, second: np.ndarray, n_categories: int
) -> Rated:
    """Two raters on the images that both read, by patient.

    Args:
        patient: N names, "" where unknown.
        label: (N,) leaf indices.
        first: (N,) codes.
        second: (N,) codes, or (S, N) of S seeds of a model.
    """
    second = np.atleast_2d(second)
    read = (first != readers.UNREAD) & (second != readers.UNREAD).all(axis=0)
    names, cluster = clusters_of(np.asarray(patient, dtype=str)[read].tolist())
    counts = confusions(cluster, len(names), first[read], second[:, read], n_categories)
    return Rated(names, counts, _labels(cluster, len(names), label, read))


def agreement(parts: Sequence[Rated]) -> Agreement:
    """The agreement of two raters, from the `pair` of each test fold."""
    rated = _joined(parts)
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
    names, cluster = clusters_of(np.asarray(patient, dtype=str)[several].tolist())
    counts = np.zeros((len(names), n_categories, n_categories))
    np.add.at(counts, cluster, readers.coincidences(codes[several], n_categories))
    rated = Rated(names, counts, _labels(cluster, len(names), label, several))
    return _interval(rated.clusters, readers.krippendorff)


def closeness(folds: Sequence[ReadFold], n_categories: int, draws: int = DRAWS) -> Closeness | None:
    """A model with a reader beside other readers with this reader, on the same images and with the same draws
    of patients. None if no image has a reading of this reader and of another one."""
    parts = [_paired(fold, n_categories) for fold in folds]
    counts = np.concatenate([part for part, _ in parts], axis=2)  # (2, O, P, K, K)
    counts = counts[:, counts[0].sum(axis=(1, 2, 3)) > 0]
    if not counts.size:
        return None
    kappa = readers.cohen(counts.sum(axis=2)).mean(axis=1)
    others = counts.shape[1]
    flat = counts.reshape(2 * others, *counts.shape[2:])
    strata = strata_of(_stacked([labels for _, labels in parts])[..., None])
    bounds = None
    if np.bincount(strata).min() > 1:
        samples, left_out = (
            np.subtract(*part.reshape(2, others, -1).mean(axis=1))
            for part in (
                bootstrap(flat, strata, readers.cohen, draws),
                jackknife(flat, strata, readers.cohen),
            )
        )
        bounds = _finite(interval(samples, left_out, strata))
    return Closeness(float(kappa[0]), float(kappa[1]), bounds)


def _paired(fold: ReadFold, n_categories: int) -> tuple[np.ndarray, np.ndarray]:
    """(2, O, P, K, K) counts of the reader with the model, and with each of O other readers, on the images
    that the reader and this other reader read; and (P, L) labels as in `Rated`."""
    read = fold.reader != readers.UNREAD
    both = read[:, None] & (fold.others != readers.UNREAD)
    any_other = both.any(axis=1)
    names, cluster = clusters_of(np.asarray(fold.patient, dtype=str)[any_other].tolist())
    reader, others, model = fold.reader[any_other], fold.others[any_other], fold.model[:, any_other]

    def counts(column: int, second: np.ndarray) -> np.ndarray:
        rows = both[any_other, column]
        return confusions(cluster[rows], len(names), reader[rows], second[..., rows], n_categories)

    numbers = range(others.shape[1])
    pairs = [[counts(o, model) for o in numbers], [counts(o, others[:, o]) for o in numbers]]
    tables = np.array(pairs).reshape(2, len(numbers), len(names), n_categories, n_categories)
    return tables, _labels(cluster, len(names), fold.label, any_other)


def _labels(cluster: np.ndarray, n_clusters: int, label: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(P, L) number of images of each leaf in the clusters of some rows. cluster: of these rows."""
    n_leaves = int(label.max(initial=-1)) + 1
    cells = cluster * n_leaves + label[rows]
    return np.bincount(cells, minlength=n_clusters * n_leaves).reshape(n_clusters, n_leaves)


def _joined(parts: Sequence[Rated]) -> Rated:
    names, counts, labels = zip(*parts, strict=True)
    return Rated(np.concatenate(names), np.concatenate(counts), _stacked(labels))


def _stacked(labels: Sequence[np.ndarray]) -> np.ndarray:
    """(P, L) labels of all folds. A fold may lack the last leaves."""
    most = max(part.shape[1] for part in labels)
    return np.concatenate([np.pad(part, ((0, 0), (0, most - part.shape[1]))) for part in labels])


def _interval(clusters: Clusters, statistic: Statistic) -> tuple[float, float] | None:
    return _finite(intervals([clusters], statistic)[0]) if len(clusters.names) else None


def _finite(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """None for bounds that are not known, since the value is not defined in some of the draws."""
    return bounds if bounds is not None and np.isfinite(bounds).all() else None
