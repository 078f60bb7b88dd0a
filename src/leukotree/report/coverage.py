"""Prediction sets of the test images of an arm, and how often they have the true leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leukotree import stats
from leukotree.evaluation import decide, metrics, prediction_sets
from leukotree.report import inner, scores
from leukotree.report.summary import Arm, Run, StudySummary, Validation, decided
from leukotree.stats import Score
from leukotree.stats.sums import Sums
from leukotree.taxonomy import Taxonomy

MEASURES = 5
"""Columns of `FoldSets.measures`."""


class Limits(NamedTuple):
    """What inner validation gives for a test fold. None where it is not estimable."""

    leaf: float | None
    """Quantile of `prediction_sets.leaf_scores`."""
    node: float | None
    """Quantile of `prediction_sets.node_scores`."""
    odd: float | None
    """The largest P(leaf) below which no leaf fits."""


class FoldSets(NamedTuple):
    """The sets of the N images of a test fold. Means over seeds."""

    repeat: int
    patient: list[str]
    keys: list[str]
    true: np.ndarray
    """(N,) leaf indices."""
    measures: np.ndarray
    """(N, MEASURES): whether the set of leaves has the true one, its size, whether it is empty, whether the
    node has the true leaf, number of leaves of the node."""


class Coverage(NamedTuple):
    """Scores of a group of images: a leaf, or all."""

    name: str
    leaves: Score
    size: Score
    empty: Score
    nodes: Score
    node_size: Score
    patients: int
    """Images without a patient do not count."""


def limits(summary: StudySummary, arm: Arm) -> dict[int, Limits]:
    """Test fold -> its limits, for the folds that have inner validation."""
    coverage = summary.operating.coverage
    return {
        fold: _limits(validation, summary.decision, coverage)
        for fold, validation in inner.by_fold(summary, arm).items()
    }


def _limits(validation: Validation, rule: decide.Rule, coverage: float) -> Limits:
    taxonomy, true, logp = validation.taxonomy, validation.true, validation.logp
    patient, rows = validation.images["patient"].tolist(), np.arange(len(validation.true))
    predicted = decided(validation, rule)
    leaf_logp = decide.leaf_logp(logp, taxonomy)
    of_leaves = prediction_sets.leaf_scores(leaf_logp)[rows, true]
    of_nodes = prediction_sets.node_scores(logp, taxonomy, predicted)[rows, true]
    return Limits(
        prediction_sets.quantile(of_leaves, patient, coverage),
        prediction_sets.quantile(of_nodes, patient, coverage),
        prediction_sets.low_score(leaf_logp, predicted == true, patient),
    )


def sets(arm: Arm, of_folds: dict[int, Limits]) -> list[FoldSets]:
    """The sets of the test folds that have both quantiles."""
    folds = []
    for fold, runs in scores.by_fold(arm.runs).items():
        limit = of_folds.get(fold)
        if limit is not None and limit.leaf is not None and limit.node is not None:
            measures = np.mean([_measures(run, limit.leaf, limit.node) for run in runs], axis=0)
            patient, keys = (runs[0].images[name].tolist() for name in ("patient", "key"))
            folds.append(FoldSets(runs[0].repeat, patient, keys, runs[0].true, measures))
    return folds


def _measures(run: Run, leaf: float, node: float) -> np.ndarray:
    rows = np.arange(len(run.true))
    inside = prediction_sets.leaf_scores(decide.leaf_logp(run.logp, run.taxonomy)) <= leaf
    below = prediction_sets.leaves_of_nodes(run.taxonomy)
    nodes = below[prediction_sets.nodes(run.logp, run.taxonomy, run.predicted, node)]
    columns = (inside[rows, run.true], inside.sum(axis=1), ~inside.any(axis=1))
    return np.column_stack([*columns, nodes[rows, run.true], nodes.sum(axis=1)]).astype(np.float64)


def measured(folds: Sequence[FoldSets], taxonomy: Taxonomy) -> list[Coverage]:
    """The scores of all images, then those of each leaf that has images. Each patient has the same weight, as
    in the guarantee of the sets, divided equally among its images of the group."""
    n_leaves = len(taxonomy.leaves)
    of_folds = [stats.patient_counts(of.patient, of.true, of.true, n_leaves, of.keys) for of in folds]
    clusters = stats.pool(of_folds, [of.repeat for of in folds])
    flat = stats.pool_sums(of_folds, [_by_patient(of, n_leaves) for of in folds], clusters)
    means = flat.reshape(len(flat), n_leaves + 1, MEASURES + 1)

    def statistic(sums: Sums) -> np.ndarray:
        table = sums["all"].reshape(*sums["all"].shape[:-1], n_leaves + 1, MEASURES + 1)
        patients = table[..., :1]
        share = np.divide(
            table[..., 1:], patients, out=np.full_like(table[..., 1:], np.nan), where=patients > 0
        )
        return share.reshape(*share.shape[:-2], -1)

    values = statistic({"all": flat.sum(axis=0)}).reshape(n_leaves + 1, MEASURES)
    bounds = stats.intervals_of({"all": flat}, clusters.strata, statistic)
    known = clusters.names != ""
    rows = []
    for group, name in enumerate(("all leaves", *taxonomy.leaves)):
        patients = int((means[known, group, 0] > 0).sum())
        mostly_known = patients >= (means[:, group, 0] > 0).sum() / 2
        of_group = [
            Score(
                float(values[group, k]),
                bounds[group * MEASURES + k] if _enough(patients, mostly_known) else None,
            )
            for k in range(MEASURES)
        ]
        if means[:, group, 0].any():
            leaves, size, empty, nodes, node_size = of_group
            rows.append(Coverage(name, leaves, size, empty, nodes, node_size, patients))
    return rows


def _enough(patients: int, mostly_known: bool) -> bool:
    return patients >= metrics.FLOOR and mostly_known


def _by_patient(of: FoldSets, n_leaves: int) -> np.ndarray:
    """(P, (1 + L) x (1 + MEASURES)): for all images and for each leaf, whether the patient has such images,
    and the means of the measures over them."""
    groups = [np.ones(len(of.true), dtype=bool), *(of.true == leaf for leaf in range(n_leaves))]
    tables = []
    for inside in groups:
        columns = np.column_stack([inside, of.measures * inside[:, None]])
        sums = stats.patient_sums(of.patient, columns)
        images = sums[:, :1]
        means = np.divide(sums[:, 1:], images, out=np.zeros_like(sums[:, 1:]), where=images > 0)
        tables.append(np.concatenate([images > 0, means], axis=1))
    return np.concatenate(tables, axis=1)
