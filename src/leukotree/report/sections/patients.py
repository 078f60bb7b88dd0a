"""The section about patients: scores by rule, by leaf and by decision."""

from __future__ import annotations

from functools import partial

import pandas as pd

from leukotree.evaluation import decision_scores, metrics
from leukotree.report import scores
from leukotree.report.blocks import (
    Block,
    Section,
    Table,
    Text,
    count,
    interval,
    mean_sd,
    percent,
    plural,
    text,
)
from leukotree.report.prose import answers as prose
from leukotree.report.summary import StudySummary

SHARES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "h_f1": "hF",
}
OF_DECISION = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "average_precision": "AP",
    "roc_auc": "ROC AUC",
}


def section(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    """Three tables and how to read them. Without patient ids, a sentence that says so."""
    unit = scores.unit(summary.runs)
    if unit is None:
        missing = "Not available: the images have no patient ids, so no claim about patients can be made."
        return Section("Patients", [Text(missing)])
    tables = [_by_rule(summary, by_fold, unit), _by_leaf(summary), _by_decision(summary)]
    return Section("Patients", [*_unit_notes(summary, unit), *tables, text(prose.RULES_OF_PATIENTS)])


def _by_rule(summary: StudySummary, by_fold: pd.DataFrame, unit: str) -> Table:
    """A row per arm and rule that combines the images of a group."""
    depths = range(1, len(summary.runs[0].taxonomy.cuts) + 1)
    rows = []
    for arm in scores.shown(summary):
        folds = by_fold[by_fold["arm"] == arm.name]
        for rule in metrics.RULES:
            pooled = scores.pooled(by_fold, arm.name, rule)
            cells = [
                f"{count(pooled.right)} / {pooled.n}",
                percent(pooled.share),
                interval(pooled.interval),
                *(mean_sd(folds[f"{rule}:{score}"].tolist()) for score in SHARES),
                f"{folds[f'{rule}:lca_height'].mean():.2f}",
                *(mean_sd(folds[f"{rule}:level:{depth}"].tolist()) for depth in depths),
            ]
            rows.append([arm.name, rule.replace("_", " "), *cells])
    header = ["variant", "rule", "right, all folds", "pooled", "Wilson 95 %", *SHARES.values(), "LCA height"]
    return Table(
        f"By rule, in per cent. The unit is the {unit}. Pooled: the share that is right in all folds "
        "together, with its interval. The other columns are mean ± standard deviation over folds.",
        [*header, *(f"depth {depth}" for depth in depths)],
        rows,
        labels=2,
    )


def _by_leaf(summary: StudySummary) -> Table:
    """A row per arm and leaf: the groups that were given their true leaf."""
    rows = []
    for arm in scores.shown(summary):
        of_fold = partial(scores.group_clusters, decision=summary.decision)
        clusters = scores.pooled_clusters(arm.runs, of_fold)
        for leaf, groups in zip(arm.runs[0].taxonomy.leaves, scores.pooled_per_leaf(clusters), strict=True):
            right = f"{count(groups.right)} / {groups.n}"
            rows.append([arm.name, leaf, right, percent(groups.share), interval(groups.interval)])
    caption = (
        "By leaf, rule mode, all folds pooled, in per cent. Below "
        f"{metrics.FLOOR} groups an interval is not estimable."
    )
    return Table(caption, ["variant", "leaf", "right, all folds", "recall", "Wilson 95 %"], rows, labels=2)


def _by_decision(summary: StudySummary) -> Table:
    """A row per arm and decision, over the groups whose true leaf lies below it, from the mean probability of
    their images."""
    rows = []
    for arm in scores.shown(summary):
        of_runs = []
        for run in arm.runs:
            groups = scores.groups(run, "mean_probability", summary.decision)
            of_runs.append(decision_scores.per_decision(groups.true, groups.logp, run.taxonomy))
        for decision, first in of_runs[0].items():
            table = pd.DataFrame([of_run[decision]._asdict() for of_run in of_runs])
            means = table[list(OF_DECISION)].astype(float).mean()
            support = sum(int(of_run[decision].support.sum()) for of_run in of_runs)
            name = f"{decision}: {' / '.join(first.classes)}"
            rows.append([arm.name, name, *(percent(means[key]) for key in OF_DECISION), str(support)])
    caption = (
        "By decision, from the mean probability of a group's images. Mean over runs, in per cent. A group "
        "counts once per seed."
    )
    return Table(caption, ["variant", "decision", *OF_DECISION.values(), "groups"], rows, labels=2)


def _unit_notes(summary: StudySummary, unit: str) -> list[Block]:
    """What the unit means, and how many images have none."""
    notes: list[Block] = []
    if unit == "patient x leaf":
        notes.append(text(prose.PATIENT_X_LEAF, "warning"))
    without = sum(int((run.images["patient"] == "").sum()) for run in scores.one_per_fold(summary.runs))
    if without:
        notes.append(Text(f"{plural(without, 'image')} without a patient id: left out here.", "note"))
    return notes
