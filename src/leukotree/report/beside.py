"""Arms of several studies side by side: which can be compared, and their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.errors import InputError
from leukotree.evaluation.metrics import FLOOR
from leukotree.report import scores
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.stats import Clusters
from leukotree.stats.clusters import strata_of

OTHER_DATA = "other data"
"""Why two arms are not paired: their data sets have other fingerprints."""


@dataclass(frozen=True)
class Candidate:
    """An arm of one of the studies."""

    study: str
    """The study's name, unique among the compared ones."""
    summary: StudySummary
    arm: Arm
    clusters: Clusters
    """The test images of all folds by patient, with leaves in the order of the first study."""
    n_folds: int

    @property
    def name(self) -> str:
        return f"{self.study}: {self.arm.name}"

    @property
    def patients(self) -> int:
        return len(self.clusters.names) - self.clusters.alone

    @property
    def macro_f1(self) -> float:
        """The score of all test images together (0 to 1)."""
        return float(stats.macro_f1(self.clusters.counts.sum(axis=0)))


@dataclass(frozen=True)
class Difference:
    """The pooled macro F1 of one candidate minus that of another, with an interval over patients."""

    challenger: Candidate
    reference: Candidate
    value: float
    interval: tuple[float, float] | None
    """95 %, by the bootstrap over patients. None where it is not estimable."""
    paired: bool
    """Whether both were tested on the same patients of the same data."""
    why: str
    """Why they are not paired; "" if they are."""


def candidates(summaries: Sequence[StudySummary]) -> list[Candidate]:
    """The shown arms of all studies.

    Raises InputError for a study without results, for other leaves, and for another decision rule than the
    first study's.
    """
    names = _names(summaries)
    for name, summary in zip(names, summaries, strict=True):
        if not summary.runs:
            raise InputError(f"study {name}: no finished run of an outer fold; a comparison needs one")
    first, leaves = summaries[0], summaries[0].runs[0].taxonomy.leaves
    for name, summary in zip(names[1:], summaries[1:], strict=True):
        theirs = summary.runs[0].taxonomy.leaves
        if set(theirs) != set(leaves):
            other = ", ".join(sorted(set(theirs) ^ set(leaves))[:4])
            raise InputError(
                f"studies {names[0]} and {name} cannot be compared: only one of them has the leaves {other}"
            )
        if summary.decision != first.decision:
            raise InputError(
                f"studies {names[0]} and {name} decide by other rules ({first.decision}, "
                f"{summary.decision}); give decision={first.decision}, which then holds for all"
            )
    return [
        _candidate(name, summary, arm, leaves)
        for name, summary in zip(names, summaries, strict=True)
        for arm in scores.shown(summary)
    ]


def _names(summaries: Sequence[StudySummary]) -> list[str]:
    """The names of the studies, with a number where two have the same."""
    names = [summary.name for summary in summaries]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _candidate(name: str, summary: StudySummary, arm: Arm, leaves: Sequence[str]) -> Candidate:
    clusters = scores.pooled_clusters(arm.runs, scores.image_clusters)
    order = pd.Index(arm.runs[0].taxonomy.leaves).get_indexer(pd.Index(leaves))
    counts = clusters.counts[:, order][:, :, order]
    keys = np.full(len(clusters.names), "") if clusters.keys is None else clusters.keys
    sort = np.lexsort([keys, clusters.names])
    strata = strata_of(counts[sort])
    ordered = Clusters(clusters.names[sort], counts[sort], strata, keys[sort])
    return Candidate(name, summary, arm, ordered, len(scores.by_fold(arm.runs)))


def differences(of_all: Sequence[Candidate]) -> list[Difference]:
    """Each arm of a later study against the arms of the first study with the same variant, or against all of
    them where none has it."""
    first = [one for one in of_all if one.study == of_all[0].study]
    found = []
    for one in of_all[len(first) :]:
        same = [other for other in first if other.arm.variant == one.arm.variant]
        found += [_difference(one, other) for other in same or first]
    return found


def _difference(challenger: Candidate, reference: Candidate) -> Difference:
    why = _unpaired(challenger, reference)
    arms = challenger.clusters, reference.clusters
    bounds = _independent(*arms) if why else stats.difference_interval(*arms, stats.macro_f1)
    if any(arm.alone == len(arm.names) for arm in arms):
        bounds = None  # each image would count as a patient
    if why and why != OTHER_DATA and set(arms[0].names) & set(arms[1].names):
        bounds = None  # patients in both groups: these are neither pairs nor two samples
    value = challenger.macro_f1 - reference.macro_f1
    return Difference(challenger, reference, value, bounds, not why, why)


def _unpaired(one: Candidate, other: Candidate) -> str:
    """Why two candidates are not tested on the same patients; "" if they are."""
    ours, theirs = scores.fingerprints(one.arm.runs), scores.fingerprints(other.arm.runs)
    if not ours or ours != theirs:
        return OTHER_DATA if ours and theirs else "the data are not recorded"
    a, b = one.clusters, other.clusters
    same = np.array_equal(a.names, b.names) and np.array_equal(_keys(a), _keys(b))
    if not same or not np.allclose(a.counts.sum(axis=-1), b.counts.sum(axis=-1)):
        return "other test images"
    return ""


def _keys(clusters: Clusters) -> np.ndarray:
    return np.full(len(clusters.names), "") if clusters.keys is None else clusters.keys


def _independent(challenger: Clusters, reference: Clusters) -> tuple[float, float] | None:
    """The 95 % interval of a difference between two groups of patients, which are drawn separately."""
    if min(len(challenger.names), len(reference.names)) < FLOOR:
        return None
    n, m = len(challenger.names), len(reference.names)
    strata = np.concatenate([challenger.strata, reference.strata + challenger.strata.max() + 1])
    counts = np.zeros((2, n + m, *challenger.counts.shape[1:]))
    counts[0, :n], counts[1, n:] = challenger.counts, reference.counts
    samples = stats.bootstrap(counts, strata, stats.macro_f1)
    without = stats.jackknife(counts, strata, stats.macro_f1)
    return stats.interval(samples[0] - samples[1], without[0] - without[1], strata)


def folds(one: Candidate) -> list[float]:
    """The macro F1 of each fold, mean over seeds."""
    return [scores.macro_f1(runs) for runs in scores.by_fold(one.arm.runs).values()]


def over_folds(row: Difference) -> tuple[float, tuple[float, float] | None]:
    """The mean of the folds' differences with its interval by Nadeau and Bengio, for methods that are trained
    again. NaN and None where the candidates are not paired."""
    if not row.paired:
        return math.nan, None
    of_arms = [_by_fold(one.arm.runs) for one in (row.challenger, row.reference)]
    values = [of_arms[0][fold] - of_arms[1][fold] for fold in of_arms[0] if fold in of_arms[1]]
    test = stats.nadeau_bengio(values, scores.ratio(row.challenger.summary))
    return float(np.mean(values)) if values else math.nan, (test.low, test.high) if test else None


def _by_fold(runs: Sequence[Run]) -> dict[int, float]:
    return {fold: scores.macro_f1(of_fold) for fold, of_fold in scores.by_fold(runs).items()}
