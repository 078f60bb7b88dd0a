"""Clinical scores of an arm with intervals by patient: of the images, or of the patients.

All folds are pooled and seeds are averaged. All scores of an arm come from one bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from leukotree import stats
from leukotree.evaluation import clinical, decide, metrics
from leukotree.evaluation.clinical import Recalibration, Target
from leukotree.report import inner, scores
from leukotree.report.summary import Arm, Run, StudySummary, Validation
from leukotree.stats import Clusters, Score
from leukotree.stats.sums import Sums
from leukotree.taxonomy import Taxonomy

PROBABILITIES = (0.05, 0.1, 0.2, 0.5)
"""Threshold probabilities at which net benefit has an interval."""
Bounds = tuple[float, float] | None


class Cases(NamedTuple):
    """The N images of a test fold, or its N patients, in S runs with different seeds."""

    repeat: int
    patient: list[str]
    """N names, "" where unknown."""
    keys: list[str] | None
    """N keys of images. None for patients."""
    true: np.ndarray
    """(N,) leaf indices."""
    predicted: np.ndarray
    """(S, N) leaf indices."""
    odds: np.ndarray
    """(S, N, T) log odds of the targets."""
    thresholds: np.ndarray
    """(T,) log odds above which a case is positive, by inner validation. NaN where not estimable."""


class Clinical(NamedTuple):
    """The clinical scores of an arm. Lists are in the order of `targets`."""

    targets: list[Target]
    rates: list[list[Score]]
    """Per target: sensitivity, specificity, PPV, NPV of the decided leaf."""
    macro: list[Score]
    """Their means over the leaves in `averaged`."""
    averaged: list[str]
    """The leaves with at least `metrics.FLOOR` patients."""
    operating: list[list[Score]]
    """Per target: reached specificity and sensitivity at the threshold of inner validation."""
    overall: list[Score]
    """MCC, kappa weighted by LCA height, mean cost."""
    benefit: list[list[Score]]
    """Per target: net benefit at PROBABILITIES."""
    recalibration: list[list[Score]]
    """Per target: slope and intercept. NaN where they were not fitted."""
    patients: np.ndarray
    """(T, 2) number of patients with images of the target, and with other images."""
    cases: int
    """The number of images, or of patients."""


def cases(summary: StudySummary, arm: Arm, targets: Sequence[Target], *, of_patients: bool) -> list[Cases]:
    """The images or patients of each test fold of an arm. The probability of a patient is the mean of those
    of its images. A patient with images of several leaves is one case for each of them."""
    specificity = summary.operating.specificity
    validations = inner.by_fold(summary, arm)
    folds = []
    for fold, runs in scores.by_fold(arm.runs).items():
        patient, true, predicted, logp = _of_patients(runs, summary) if of_patients else _of_images(runs)
        odds = np.stack([_odds(of_seed, runs[0].taxonomy, targets) for of_seed in logp])
        thresholds = np.full(len(targets), np.nan)
        if fold in validations:
            thresholds = _thresholds(validations[fold], targets, specificity, of_patients)
        keys = None if of_patients else runs[0].images["key"].tolist()
        folds.append(Cases(runs[0].repeat, patient, keys, true, predicted, odds, thresholds))
    return folds


def _of_images(runs: Sequence[Run]) -> tuple[list[str], np.ndarray, np.ndarray, list[np.ndarray]]:
    predicted = np.stack([run.predicted for run in runs])
    return runs[0].images["patient"].tolist(), runs[0].true, predicted, [run.logp for run in runs]


def _of_patients(
    runs: Sequence[Run], summary: StudySummary
) -> tuple[list[str], np.ndarray, np.ndarray, list[np.ndarray]]:
    groups = [scores.groups(run, "mean_probability", summary.decision) for run in runs]
    predicted = np.stack([of_seed.predicted for of_seed in groups])
    return groups[0].patient.tolist(), groups[0].true, predicted, [of_seed.logp for of_seed in groups]


def _odds(logp: np.ndarray, taxonomy: Taxonomy, targets: Sequence[Target]) -> np.ndarray:
    """(N, T) log odds of the targets, from (N, E) log p(child | parent)."""
    leaf_logp = decide.leaf_logp(logp, taxonomy)
    return np.stack([clinical.log_odds(leaf_logp, target) for target in targets], axis=1)


def _thresholds(
    validation: Validation, targets: Sequence[Target], specificity: float, of_patients: bool
) -> np.ndarray:
    """(T,) thresholds by inner validation. NaN with fewer than FLOOR patients that are negative."""
    patient, true, logp = validation.images["patient"].tolist(), validation.true, validation.logp
    if of_patients:
        groups = metrics.by_patient(patient, true, logp, validation.taxonomy, "mean_probability")
        patient, true, logp = groups.patient.tolist(), groups.true, groups.logp
    odds, names = _odds(logp, validation.taxonomy, targets), np.asarray(patient, dtype=str)
    found = np.full(len(targets), np.nan)
    for place, target in enumerate(targets):
        positive = target.leaves[true]
        known = names[~positive]
        if len(np.unique(known[known != ""])) >= metrics.FLOOR:
            at = clinical.threshold(odds[:, place], positive, specificity)
            found[place] = np.nan if at is None else at
    return found


def scored(folds: Sequence[Cases], targets: Sequence[Target], taxonomy: Taxonomy, *, fit: bool) -> Clinical:
    """The scores of an arm from its test folds. `fit`: whether to fit slope and intercept."""
    n_leaves = len(taxonomy.leaves)
    of_folds = [stats.patient_counts(of.patient, of.true, of.predicted, n_leaves, of.keys) for of in folds]
    clusters = stats.pool(of_folds, [of.repeat for of in folds])
    fits = [_fitted(folds, targets, place) if fit else None for place in range(len(targets))]
    parts: dict[str, np.ndarray] = {
        "confusion": _flat(clusters.counts),
        **_pooled(folds, of_folds, clusters, lambda of: _parts(of, targets, fits)),
    }
    patients, unknown = _patients(clusters, targets)
    averaged = [leaf for leaf in range(n_leaves) if patients[leaf, 0] >= metrics.FLOOR and not unknown[leaf]]

    def statistic(sums: Sums) -> dict[str, np.ndarray]:
        return _statistics(sums, targets, taxonomy, averaged, fits)

    values = statistic({name: part.sum(axis=0) for name, part in parts.items()})
    bounds = stats.intervals_of(
        parts, clusters.strata, lambda sums: np.concatenate(list(statistic(sums).values()), axis=-1)
    )
    few = (patients < metrics.FLOOR) | unknown[:, None]
    return _assembled(values, bounds, targets, averaged, few, patients, round(clusters.counts.sum()))


def _fitted(folds: Sequence[Cases], targets: Sequence[Target], place: int) -> Recalibration | None:
    """Slope and intercept of a target, over all folds and seeds."""
    x = np.concatenate([of.odds[:, :, place].ravel() for of in folds])
    positive = [np.tile(targets[place].leaves[of.true], len(of.odds)) for of in folds]
    return clinical.recalibrate(x, np.concatenate(positive))


def _pooled(
    folds: Sequence[Cases],
    of_folds: Sequence[Clusters],
    pooled: Clusters,
    parts: Callable[[Cases], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Name -> (P, F) sums of each pooled cluster."""
    sums = [{name: stats.patient_sums(of.patient, part) for name, part in parts(of).items()} for of in folds]
    return {name: stats.pool_sums(of_folds, [of[name] for of in sums], pooled) for name in sums[0]}


def _parts(
    of: Cases, targets: Sequence[Target], fits: Sequence[Recalibration | None]
) -> dict[str, np.ndarray]:
    """Name -> (N, F) contributions of the cases to sums, means over seeds."""
    positive = np.stack([target.leaves[of.true] for target in targets], axis=1)  # (N, T)
    judged = ~np.isnan(of.thresholds)
    operating = _called(of.odds > np.nan_to_num(of.thresholds), positive) * judged[:, None]
    logits = np.log(PROBABILITIES) - np.log1p(-np.array(PROBABILITIES))
    benefit = np.stack([_called(of.odds >= logit, positive)[..., :2] for logit in logits], axis=2)
    recalibration = np.zeros((len(of.true), len(targets), 7))
    for place, fit in enumerate(fits):
        if fit is not None:
            of_seeds = [
                clinical.recalibration_parts(x, positive[:, place], fit) for x in of.odds[:, :, place]
            ]
            recalibration[:, place] = np.mean(of_seeds, axis=0)
    parts = {"operating": operating, "benefit": benefit, "recalibration": recalibration}
    return {name: _flat(part) for name, part in parts.items()}


def _flat(table: np.ndarray) -> np.ndarray:
    """(N, F) from (N, ...), also for N = 0, where numpy cannot infer F."""
    return table.reshape(len(table), math.prod(table.shape[1:]))


def _called(called: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(N, T, 4) counts of calling cases positive, means over seeds. called: (S, N, T). positive: (N, T)."""
    share = called.mean(axis=0)
    return np.stack(
        [share * positive, share * ~positive, (1 - share) * positive, (1 - share) * ~positive], axis=-1
    )


def _statistics(
    sums: Sums,
    targets: Sequence[Target],
    taxonomy: Taxonomy,
    averaged: Sequence[int],
    fits: Sequence[Recalibration | None],
) -> dict[str, np.ndarray]:
    """Name -> (..., K) scores, from sums with any leading axes."""
    n_leaves, leading = len(taxonomy.leaves), sums["confusion"].shape[:-1]
    confusion = sums["confusion"].reshape(*leading, n_leaves, n_leaves)
    decided = np.stack([clinical.counts(confusion, target) for target in targets], axis=-2)  # (..., T, 4)
    rates = np.stack(clinical.rates(decided), axis=-1)
    macro = rates[..., list(averaged), :].mean(axis=-2) if averaged else np.full((*leading, 4), np.nan)
    called = clinical.rates(sums["operating"].reshape(*leading, len(targets), 4))
    overall = [
        clinical.mcc(confusion),
        clinical.weighted_kappa(confusion, taxonomy.lca_heights),
        clinical.mean_cost(confusion, taxonomy.costs),
    ]
    called_at = sums["benefit"].reshape(*leading, len(targets), len(PROBABILITIES), 2)
    total = confusion.sum(axis=(-2, -1))[..., None, None]
    benefit = clinical.net_benefit(called_at[..., 0], called_at[..., 1], total, np.array(PROBABILITIES))
    parts = sums["recalibration"].reshape(*leading, len(targets), 7)
    unfitted = np.full((*leading, 2), np.nan)
    recalibration = [
        unfitted if fit is None else clinical.one_step(parts[..., place, :], fit)
        for place, fit in enumerate(fits)
    ]
    return {
        "rates": rates.reshape(*leading, -1),
        "macro": macro,
        "operating": np.stack([called.specificity, called.sensitivity], axis=-1).reshape(*leading, -1),
        "overall": np.stack(overall, axis=-1),
        "benefit": benefit.reshape(*leading, -1),
        "recalibration": np.stack(recalibration, axis=-2).reshape(*leading, -1),
    }


def _patients(clusters: Clusters, targets: Sequence[Target]) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2) patients with cases of a target, and with others; (T,) whether most cases of a target have no
    patient."""
    cases, known = clusters.counts.sum(axis=-1), clusters.names != ""
    patients, unknown = [], []
    for target in targets:
        of_target, others = cases[:, target.leaves].sum(axis=1), cases[:, ~target.leaves].sum(axis=1)
        patients.append([int((part[known] > 0).sum()) for part in (of_target, others)])
        unknown.append(of_target[~known].sum() > of_target.sum() / 2)
    return np.array(patients), np.array(unknown)


def _assembled(
    values: dict[str, np.ndarray],
    bounds: Sequence[Bounds],
    targets: Sequence[Target],
    averaged: Sequence[int],
    few: np.ndarray,
    patients: np.ndarray,
    n_cases: int,
) -> Clinical:
    """The scores in lists. few: (T, 2) whether a target, or its rest, has too few patients for intervals."""
    places = np.cumsum([0, *(len(value) for value in values.values())])
    flat = {
        name: [
            Score(float(value), bound) for value, bound in zip(values[name], bounds[start:stop], strict=True)
        ]
        for name, start, stop in zip(values, places, places[1:], strict=False)
    }
    n_targets = len(targets)
    # The side of the target, or the other one, whose patients a score is about.
    needed: dict[str, list[list[int]]] = {"rates": [[0], [1], [0, 1], [0, 1]], "operating": [[1], [0]]}

    def per_target(name: str) -> list[list[Score]]:
        width = len(flat[name]) // n_targets
        sides = needed.get(name, [[0, 1]] * width)
        return [
            [
                score._replace(interval=None) if few[target, side].any() else score
                for score, side in zip(flat[name][target * width :][:width], sides, strict=True)
            ]
            for target in range(n_targets)
        ]

    return Clinical(
        targets=list(targets),
        rates=per_target("rates"),
        macro=flat["macro"],
        averaged=[targets[leaf].name for leaf in averaged],
        operating=per_target("operating"),
        overall=flat["overall"],
        benefit=per_target("benefit"),
        recalibration=per_target("recalibration"),
        patients=patients,
        cases=n_cases,
    )


def benefit_curve(folds: Sequence[Cases], target: int, positive: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """(G,) net benefit of a target at G threshold probabilities. positive: (L,) bool, the target's leaves."""
    logits = np.log(grid) - np.log1p(-grid)
    called = np.zeros((2, len(grid)))
    for of in folds:
        for x in of.odds[:, :, target]:
            for row, true in enumerate((positive[of.true], ~positive[of.true])):
                at_least = true.sum() - np.searchsorted(np.sort(x[true]), logits)
                called[row] += at_least / len(of.odds)
    return clinical.net_benefit(called[0], called[1], np.array(sum(len(of.true) for of in folds)), grid)


def all_positive(folds: Sequence[Cases], positive: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """(G,) net benefit of calling all cases positive."""
    true = positive[np.concatenate([of.true for of in folds])]
    return clinical.net_benefit(true.sum(), (~true).sum(), np.array(len(true)), grid)
