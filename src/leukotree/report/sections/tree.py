"""The sections about the tree: hierarchical scores, and each decision, depth and leaf by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.evaluation import decision_scores, metrics
from leukotree.report import figures, scores
from leukotree.report.blocks import Figure, Section, Table, interval, mean_sd, percent, text
from leukotree.report.prose import answers as prose
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.stats import Clusters

SHARES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "average_precision": "AP",
    "roc_auc": "ROC AUC",
}
OF_TREE = {
    "tree:precision": "hP",
    "tree:recall": "hR",
    "tree:f1": "hF",
    "tree:macro_f1": "macro hF",
    "tree:lca_height": "LCA height",
    "tree:lca_height_of_errors": "LCA height of errors",
}


def section(by_fold: pd.DataFrame) -> Section:
    """A table of hierarchical scores, and of the accuracy at each depth."""
    levels = [column for column in by_fold if str(column).startswith("level:")]
    rows = []
    for arm, folds in by_fold.groupby("arm", sort=False):
        cells = [_height(folds[key]) if "lca" in key else mean_sd(folds[key].tolist()) for key in OF_TREE]
        rows.append([str(arm), *cells, *(mean_sd(folds[level].tolist()) for level in levels)])
    header = ["variant", *OF_TREE.values(), *(f"depth {i}" for i in range(1, len(levels) + 1))]
    return Section(
        "Tree",
        [
            Table("Mean ± standard deviation over folds, in per cent. Heights are in edges.", header, rows),
            text(prose.TREE),
        ],
    )


def _height(values: pd.Series) -> str:
    mean = values.mean()
    return "–" if np.isnan(mean) else f"{mean:.2f}"


def decisions(summary: StudySummary) -> Section:
    """A row per decision over the images whose true leaf lies below it, and a row per depth over all
    images."""
    rows = []
    for arm in scores.shown(summary):
        of_runs = [_problems(run, summary) for run in arm.runs]
        for name, first in of_runs[0].items():
            table = pd.DataFrame([of_run[name]._asdict() for of_run in of_runs])
            means = table[list(SHARES)].astype(float).mean()
            support = sum(int(of_run[name].support.sum()) for of_run in of_runs)
            shares = [percent(means[key]) for key in SHARES]
            rows.append([arm.name, f"{name}: {' / '.join(first.classes)}", *shares, str(support)])
    header = ["variant", "problem", *SHARES.values(), "images"]
    caption = (
        "Each decision and each depth of the tree. Mean over runs, shares in per cent. An image counts once "
        "per seed."
    )
    return Section(
        "Decisions and depths", [Table(caption, header, rows, labels=2), text(prose.DECISIONS_AND_DEPTHS)]
    )


def _problems(run: Run, summary: StudySummary) -> dict[str, decision_scores.DecisionScores]:
    """Name -> the scores of each decision, then of each depth. A depth with the same classes as the depth
    above is left out."""
    depths = decision_scores.per_depth(run.true, run.logp, run.taxonomy, summary.decision, run.predicted)
    cuts = run.taxonomy.cut_of_leaf
    of_depths = {
        f"depth {depth + 1}": of_depth
        for depth, of_depth in enumerate(depths)
        if not depth or not np.array_equal(cuts[depth], cuts[depth - 1])
    }
    return decision_scores.per_decision(run.true, run.logp, run.taxonomy) | of_depths


def leaves(summary: StudySummary) -> Section:
    """The figure of the confusion matrices, and a table of each leaf with intervals by patient."""
    arms = scores.shown(summary)
    taxonomy = arms[0].runs[0].taxonomy
    rows = []
    for arm in arms:
        clusters = scores.pooled_clusters(arm.runs, scores.image_clusters)
        rows += [[arm.name, *row] for row in _leaf_rows(clusters, taxonomy.leaves)]
    confusions = {arm.name: _confusion(arm) for arm in arms}
    caption = (
        "Confusion matrices of the images, all folds and seeds pooled: the share of the true leaf's images, "
        "and their number."
    )
    header = [
        "variant",
        "leaf",
        "precision",
        "recall",
        "recall, 95 % by patient",
        "F1",
        "F1, 95 % by patient",
        "images",
        "patients",
    ]
    return Section(
        "Leaves",
        [
            Figure("confusion", caption, figures.confusions(confusions, taxonomy.leaves)),
            Table(
                "Each leaf, all folds pooled and seeds averaged, in per cent.",
                header,
                rows,
                labels=2,
                file="leaves",
            ),
            text(prose.LEAVES, floor=metrics.FLOOR),
        ],
    )


def _confusion(arm: Arm) -> np.ndarray:
    """The (L, L) counts over all folds and seeds. An image counts once per seed and repeat."""
    tables = [metrics.confusion(run.true, run.predicted, len(run.taxonomy.leaves)) for run in arm.runs]
    return np.sum(tables, axis=0)


def _leaf_rows(clusters: Clusters, names: tuple[str, ...]) -> list[list[str]]:
    """A row per leaf: leaf, precision, recall with its interval, F1 with its interval, images, patients."""
    table = clusters.counts.sum(axis=0)
    right, images, given = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    patients = stats.patients_per_leaf(clusters)
    unknown = clusters.counts[clusters.names == ""].sum(axis=(0, 2)) > images / 2
    rows = []
    for leaf, name in enumerate(names):
        estimable = patients[leaf] >= metrics.FLOOR and not unknown[leaf]
        bounds = [
            _interval(clusters, partial(_of_leaf, score, leaf)) if estimable else interval(None)
            for score in (stats.recall, stats.f1)
        ]
        values = [
            right[leaf] / given[leaf] if given[leaf] else 0.0,
            stats.recall(table)[leaf],
            stats.f1(table)[leaf],
        ]
        precision, recall, f1 = (percent(float(value)) for value in values)
        shown = str(patients[leaf]) if patients[leaf] or not images[leaf] else "unknown"
        rows.append([name, precision, recall, bounds[0], f1, bounds[1], str(round(images[leaf])), shown])
    return rows


def _interval(clusters: Clusters, score: Callable[[np.ndarray], np.ndarray]) -> str:
    """The bootstrap interval of one leaf's score. Patients with the same result have no spread to
    resample."""
    bounds = stats.intervals([clusters], score)[0]
    return "no spread" if bounds is None else interval(bounds)


def _of_leaf(score: Callable[[np.ndarray], np.ndarray], leaf: int, confusion: np.ndarray) -> np.ndarray:
    return score(confusion)[..., leaf]
