"""From runs to score tables: one row per run, then the mean over seeds within a fold, then mean and spread
over folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.evaluation import decide, metrics, tree_scores
from leukotree.evaluation.metrics import Groups, Rule
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.stats import Clusters

MOST_ARMS = 6
"""Of a grid, that the detailed sections show."""


class Pooled(NamedTuple):
    """Groups given their true leaf, of all groups of all folds: `right` is a mean over seeds and may be
    fractional."""

    right: float
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        return metrics.wilson(self.right, self.n)


def shown(summary: StudySummary) -> list[Arm]:
    """The arms with results that the detailed sections are about: the variants with chosen values; of a grid
    the arms of the declared comparisons, or else all, MOST_ARMS at most."""
    done = [arm for arm in summary.arms if arm.runs]
    if variants := [arm for arm in done if arm.cell is None]:
        return variants
    declared = {name for pair in summary.primary for name in pair}
    return ([arm for arm in done if arm.name in declared] or done)[:MOST_ARMS]


def groups(run: Run, rule: Rule, decision: decide.Rule) -> Groups:
    return metrics.by_patient(
        run.images["patient"].tolist(), run.true, run.logp, run.taxonomy, rule, decision
    )


def unit(runs: Sequence[Run]) -> str | None:
    """What patient-level scores count: "patient", "patient x leaf" where a patient has several leaves, None
    without ids."""
    found = {
        (fold.test_fold, name, leaf)
        for fold in one_per_fold(runs)
        for name, leaf in zip(fold.images["patient"], fold.true, strict=True)
        if name
    }
    if not found:
        return None
    return "patient" if len({(fold, name) for fold, name, _ in found}) == len(found) else "patient x leaf"


def leaves_of_patients(runs: Sequence[Run]) -> np.ndarray:
    """The leaves that some group of some fold is of: what patient-level macro averages run over, in every
    fold and arm. Of the others (all of whose images lack a patient) nothing is known."""
    found = [fold.true[(fold.images["patient"] != "").to_numpy()] for fold in one_per_fold(runs)]
    return np.unique(np.concatenate(found))


def one_per_fold(runs: Sequence[Run]) -> list[Run]:
    """Any one run of each test fold, in order of folds: together they hold each tested image once."""
    return [run for _, run in sorted({run.test_fold: run for run in reversed(runs)}.items())]


def by_fold(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """Test fold -> its runs, one per seed; of one arm."""
    return {
        fold: [run for run in runs if run.test_fold == fold]
        for fold in sorted({run.test_fold for run in runs})
    }


def most_common(runs: Sequence[Run]) -> tuple[str, dict[str, float]]:
    """The most common leaf, and the scores of always answering it."""
    folds = one_per_fold(runs)
    true = np.concatenate([run.true for run in folds])
    common = int(np.bincount(true).argmax())
    leaves = folds[0].taxonomy.leaves
    return leaves[common], metrics.summary(true, np.full_like(true, common), len(leaves))


def per_run(summary: StudySummary, arms: Sequence[Arm]) -> pd.DataFrame:
    """A row per run: arm, fold, seed, images, the image scores, groups, the patient scores behind the name of
    each rule (see
    `_of_groups`), the scores of the tree by their names in `hierarchy.TreeScores` behind "tree:", and the
    accuracy at each depth
    behind "level:"."""
    rows, of_patients = [], leaves_of_patients(summary.runs)
    for run in (run for arm in arms for run in arm.runs):
        n_leaves = len(run.taxonomy.leaves)
        row: dict[str, object] = {
            "arm": run.arm,
            "fold": run.test_fold,
            "seed": run.seed,
            "images": len(run.true),
        }
        row |= metrics.summary(run.true, run.predicted, n_leaves)
        for rule in metrics.RULES:
            found = groups(run, rule, summary.decision)
            row["groups"] = len(found.true)
            row |= {f"{rule}:{key}": value for key, value in _of_groups(found, run, of_patients).items()}
        tree = tree_scores.scores(metrics.confusion(run.true, run.predicted, n_leaves), run.taxonomy)
        row |= {f"tree:{name}": float(value) for name, value in tree._asdict().items()}
        right = (
            decide.per_depth(run.logp, run.taxonomy, summary.decision) == run.taxonomy.cut_of_leaf.T[run.true]
        )
        row |= {f"level:{level}": float(share) for level, share in enumerate(right.mean(axis=0), 1)}
        rows.append(row)
    return pd.DataFrame(rows)


def _of_groups(found: Groups, run: Run, leaves: np.ndarray) -> dict[str, float]:
    """right, accuracy, balanced_accuracy, macro_f1, h_f1, lca_height, and the accuracy at each depth behind
    "level:"."""
    n_leaves = len(run.taxonomy.leaves)
    score = metrics.summary(found.true, found.predicted, n_leaves, leaves)
    counts = metrics.confusion(found.true, found.predicted, n_leaves)
    levels = metrics.level_accuracy(found.true, found.predicted, run.taxonomy)
    return {
        "right": float((found.true == found.predicted).sum()),
        **{key: score[key] for key in ("accuracy", "balanced_accuracy", "macro_f1")},
        "h_f1": float(tree_scores.f1(counts, run.taxonomy)),
        "lca_height": float(tree_scores.lca_height(counts, run.taxonomy)),
        **{f"level:{level}": share.value for level, share in enumerate(levels, 1)},
    }


def per_fold(by_run: pd.DataFrame) -> pd.DataFrame:
    """Seeds averaged within a fold: a row per (arm, fold), with `seeds`, how many there were."""
    grouped = by_run.groupby(["arm", "fold"], sort=False)
    return grouped.mean().drop(columns="seed").assign(seeds=grouped.size()).reset_index()


def pooled(folds: pd.DataFrame, arm: str, rule: Rule) -> Pooled:
    rows = folds[folds["arm"] == arm]
    return Pooled(float(rows[f"{rule}:right"].sum()), int(rows["groups"].sum()))


def pooled_per_leaf(clusters: Clusters) -> list[Pooled]:
    """L entries: how many groups of a leaf were given it."""
    table = clusters.counts.sum(axis=0)
    return [
        Pooled(round(float(right), 6), round(float(n)))
        for right, n in zip(np.diagonal(table), table.sum(axis=1), strict=True)
    ]


def image_clusters(runs: Sequence[Run]) -> Clusters:
    """The images of one fold by patient; runs: one per seed."""
    n_leaves = len(runs[0].taxonomy.leaves)
    return stats.patient_counts(
        runs[0].images["patient"].tolist(), runs[0].true, np.stack([run.predicted for run in runs]), n_leaves
    )


def group_clusters(runs: Sequence[Run], decision: decide.Rule) -> Clusters:
    """The groups of one fold, decided by the mode, by patient; runs: one per seed."""
    seeds = [groups(run, "mode", decision) for run in runs]
    n_leaves = len(runs[0].taxonomy.leaves)
    return stats.patient_counts(
        seeds[0].patient.tolist(), seeds[0].true, np.stack([found.predicted for found in seeds]), n_leaves
    )


def ratio(summary: StudySummary) -> float:
    """n_test / n_train of an outer fold: from what the runs noted that they were trained and tested on, or 1
    / (K - 1) for the K folds of older runs, which noted nothing. Never from today's data set, which may have
    grown."""
    totals = [run.trained + len(run.true) for run in summary.runs if run.trained]
    test = np.mean([len(run.true) for run in one_per_fold(summary.runs)])
    if totals:
        return float(test / (totals[0] - test))
    folds = int(
        (summary.study.get("folds") or {}).get("outer") or len({run.test_fold for run in summary.runs})
    )
    return 1 / max(folds - 1, 1)
