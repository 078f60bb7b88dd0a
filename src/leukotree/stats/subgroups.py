"""Scores of one arm in groups of its test images, and differences between the groups, with intervals over
patients.

All groups are resampled together: a patient with images in several groups, such as two scanners, is drawn for
all of them. Strata are the patients with the same groups and leaves, so that no draw leaves a group without
patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from leukotree.evaluation.metrics import FLOOR
from leukotree.stats.answers import Answers
from leukotree.stats.clusters import accuracy, clusters_of, f1, recall, strata_of
from leukotree.stats.resampling import DRAWS, bootstrap, finite, interval, jackknife


class Score(NamedTuple):
    """A score (NaN where it is not defined) and its 95 % interval over patients (None where it is not
    estimable)."""

    value: float
    interval: tuple[float, float] | None


class GroupScores(NamedTuple):
    """The scores of an arm in one group of images."""

    images: int
    patients: int
    """Known patients."""
    accuracy: Score
    macro_f1: Score
    """The mean over the leaves that the group has."""
    sensitivity: tuple[Score, ...]
    """The recall of each leaf. Its interval is not estimable below FLOOR patients of this leaf in the
    group."""
    patients_per_leaf: np.ndarray
    """(L,) int64."""
    difference: Score | None
    """Mean sensitivity minus that of the largest group, over the leaves that have FLOOR or more patients in
    both. None for the largest group, and without such a leaf."""
    leaves_compared: int


def in_groups(
    patient: Sequence[str],
    group: np.ndarray,
    true: np.ndarray,
    answers: Answers,
    n_groups: int,
    n_leaves: int,
    draws: int = DRAWS,
) -> list[GroupScores]:
    """The scores of an arm in each of G groups of its N test images.

    Args:
        patient: N names, "" where unknown.
        group: (N,) int64 from 0.
        true: (N,) leaf indices.
        answers: of the arm, leaf indices.
    """
    names, cluster = clusters_of(patient)
    counts = np.stack(
        [answers.tables(cluster, len(names), true, n_leaves, group == number) for number in range(n_groups)]
    )  # (G, P, L, L)
    known = names != ""
    resampled = _Resampled(counts, draws)
    has = counts.sum(axis=-1) > 0  # (G, P, L)
    patients = has[:, known].sum(axis=1)
    largest = int(counts.sum(axis=(1, 2, 3)).argmax())
    return [
        _of_group(resampled, number, largest, has[number].any(axis=1), known, patients)
        for number in range(n_groups)
    ]


class _Resampled:
    """The (G, L, L) confusion matrices of the groups, their bootstrap draws and their jackknife."""

    def __init__(self, counts: np.ndarray, draws: int) -> None:
        groups, clusters, leaves, _ = counts.shape
        self.tables = counts.sum(axis=1)
        self.strata = strata_of(np.moveaxis(counts, 1, 0).reshape(clusters, groups * leaves, leaves))
        self.estimable = clusters >= FLOOR
        if self.estimable:
            self.samples = bootstrap(counts, self.strata, lambda tables: tables, draws).T
            self.left_out = jackknife(counts, self.strata, lambda tables: tables)

    def score(self, statistic: Callable[[np.ndarray], np.ndarray], estimable: bool) -> Score:
        """A score that `statistic` computes from (..., G, L, L) matrices."""
        value = float(statistic(self.tables))
        if not (estimable and self.estimable):
            return Score(value, None)
        bounds = interval(statistic(self.samples), statistic(np.moveaxis(self.left_out, 0, 1)), self.strata)
        return Score(value, finite(bounds))


def _of_group(
    resampled: _Resampled,
    group: int,
    largest: int,
    clusters: np.ndarray,
    known: np.ndarray,
    patients: np.ndarray,
) -> GroupScores:
    """clusters: (P,) bool, those with images in the group. patients: (G, L) known patients."""
    table = resampled.tables[group]
    present = table.sum(axis=1) > 0
    enough = int(clusters.sum()) >= FLOOR
    both = np.asarray((patients[[group, largest]] >= FLOOR).all(axis=0))
    compared = group != largest and bool(both.any())
    return GroupScores(
        images=round(float(table.sum())),
        patients=int((clusters & known).sum()),
        accuracy=resampled.score(lambda tables: accuracy(tables[..., group, :, :]), enough),
        macro_f1=resampled.score(
            lambda tables: f1(tables[..., group, :, :]) @ present / (present.sum() or np.nan), enough
        ),
        sensitivity=tuple(
            resampled.score(_recall(group, leaf), int(patients[group, leaf]) >= FLOOR)
            if present[leaf]
            else Score(float("nan"), None)
            for leaf in range(len(table))
        ),
        patients_per_leaf=patients[group],
        difference=resampled.score(_difference(group, largest, both), True) if compared else None,
        leaves_compared=int(both.sum()) if compared else 0,
    )


def _recall(group: int, leaf: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda tables: recall(tables[..., group, :, :])[..., leaf]


def _difference(group: int, reference: int, leaves: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Mean recall over some leaves in one group, minus that in another."""

    def difference(tables: np.ndarray) -> np.ndarray:
        means = recall(tables)[..., leaves].mean(axis=-1)
        return means[..., group] - means[..., reference]

    return difference
