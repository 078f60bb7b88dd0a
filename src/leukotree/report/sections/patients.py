"""The section about patients: scores by rule, and the leaves with intervals."""

from __future__ import annotations

import pandas as pd

from leukotree import stats
from leukotree.evaluation import decision_scores, metrics
from leukotree.report import prose, scores
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
    unit = scores.unit(summary.runs)
    if unit is None:
        return Section(
            "Patients",
            [Text("Not available: the images carry no patient, so no claim about patients can be made.")],
        )
    rows, leaf_rows, taxonomy = [], [], summary.runs[0].taxonomy
    for arm in scores.shown(summary):
        mine = by_fold[by_fold["arm"] == arm.name]
        for rule in metrics.RULES:
            pooled = scores.pooled(by_fold, arm.name, rule)
            means = [mean_sd(mine[f"{rule}:{score}"].tolist()) for score in SHARES]
            right, height = f"{count(pooled.right)} / {pooled.n}", mine[f"{rule}:lca_height"].mean()
            depths = [
                mean_sd(mine[f"{rule}:level:{level + 1}"].tolist()) for level in range(len(taxonomy.cuts))
            ]
            rows.append(
                [
                    arm.name,
                    rule.replace("_", " "),
                    right,
                    interval(pooled.interval),
                    *means,
                    f"{height:.2f}",
                    *depths,
                ]
            )
        clusters = stats.pool(
            [scores.group_clusters(runs, summary.decision) for runs in scores.by_fold(arm.runs).values()]
        )
        for leaf, found in zip(arm.runs[0].taxonomy.leaves, scores.pooled_per_leaf(clusters), strict=True):
            share = percent(found.right / found.n if found.n else float("nan"))
            leaf_rows.append(
                [arm.name, leaf, f"{count(found.right)} / {found.n}", share, interval(found.interval)]
            )
    header = [
        "variant",
        "rule",
        "right, all folds",
        "Wilson 95 %",
        *SHARES.values(),
        "LCA height",
        *(f"depth {level + 1}" for level in range(len(taxonomy.cuts))),
    ]
    leaf_header = ["variant", "leaf", "right, all folds", "recall", "Wilson 95 %"]
    return Section(
        "Patients",
        [
            *_unit_notes(summary, unit),
            Table(
                f"By rule; the unit is the {unit}. Mean ± standard deviation over folds, in per cent.",
                header,
                rows,
                labels=2,
            ),
            Table(
                f"By leaf, rule mode, all folds pooled, in per cent; below {metrics.FLOOR} groups not estimable.",
                leaf_header,
                leaf_rows,
                labels=2,
            ),
            _decisions(summary),
            text(prose.RULES),
        ],
    )


def _decisions(summary: StudySummary) -> Table:
    """Each decision among the groups that belong below it, from the mean of their images' probabilities."""
    rows = []
    for arm in scores.shown(summary):
        parts = []
        for run in arm.runs:
            found = scores.groups(run, "mean_probability", summary.decision)
            parts.append(decision_scores.per_decision(found.true, found.logp, run.taxonomy))
        for node, one in parts[0].items():
            means = (
                pd.DataFrame([part[node]._asdict() for part in parts])[list(OF_DECISION)].astype(float).mean()
            )
            support = sum(int(part[node].support.sum()) for part in parts)
            rows.append(
                [
                    arm.name,
                    f"{node}: {' / '.join(one.classes)}",
                    *(percent(means[key]) for key in OF_DECISION),
                    str(support),
                ]
            )
    caption = (
        "Every decision, from the mean probability of a group's images; mean over runs, in per cent. A group counts once "
        "per seed."
    )
    return Table(caption, ["variant", "decision", *OF_DECISION.values(), "groups"], rows, labels=2)


def _unit_notes(summary: StudySummary, unit: str) -> list[Block]:
    notes: list[Block] = []
    if unit == "patient x leaf":
        notes.append(text(prose.PATIENT_X_LEAF, "warning"))
    without = sum(int((run.images["patient"] == "").sum()) for run in scores.one_per_fold(summary.runs))
    if without:
        notes.append(Text(f"{plural(without, 'image')} without a patient: left out here.", "note"))
    return notes
