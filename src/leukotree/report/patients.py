"""The section about patients: scores by rule, and the leaves with intervals."""

from __future__ import annotations

import pandas as pd

from leukotree import metrics, stats
from leukotree.report import prose, scores
from leukotree.report.blocks import Block, Section, Table, Text, count, interval, mean_sd, percent, plural, text
from leukotree.report.summary import StudySummary


def section(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    unit = scores.unit(summary.runs)
    if unit is None:
        return Section("Patients", [Text("Not available: the images carry no patient, so no claim about patients can be made.")])
    rows, leaf_rows = [], []
    for arm in scores.shown(summary):
        mine = by_fold[by_fold["arm"] == arm.name]
        for rule in metrics.RULES:
            pooled = scores.pooled(by_fold, arm.name, rule)
            means = [mean_sd(mine[f"{rule}:{score}"].tolist()) for score in ("accuracy", "macro_f1")]
            right = f"{count(pooled.right)} / {pooled.n}"
            rows.append([arm.name, rule.replace("_", " "), *means, right, interval(pooled.interval)])
        clusters = stats.pool([scores.group_clusters(runs, summary.decision) for runs in scores.by_fold(arm.runs).values()])
        for leaf, found in zip(arm.runs[0].taxonomy.leaves, scores.pooled_per_leaf(clusters), strict=True):
            share = percent(found.right / found.n if found.n else float("nan"))
            leaf_rows.append([arm.name, leaf, f"{count(found.right)} / {found.n}", share, interval(found.interval)])
    header = ["variant", "rule", "accuracy", "macro F1", "right, all folds", "Wilson 95 %"]
    leaf_header = ["variant", "leaf", "right, all folds", "recall", "Wilson 95 %"]
    return Section("Patients", [
        *_unit_notes(summary, unit),
        Table(f"By rule; the unit is the {unit}. Mean ± standard deviation over folds, in per cent.", header, rows, labels=2),
        Table(f"By leaf, rule mode, all folds pooled, in per cent; below {metrics.FLOOR} groups not estimable.",
              leaf_header, leaf_rows, labels=2),
        text(prose.RULES),
    ])  # fmt: skip


def _unit_notes(summary: StudySummary, unit: str) -> list[Block]:
    notes: list[Block] = []
    if unit == "patient x leaf":
        notes.append(text(prose.PATIENT_X_LEAF, "warning"))
    without = sum(int((run.images["patient"] == "").sum()) for run in scores.one_per_fold(summary.runs))
    if without:
        notes.append(Text(f"{plural(without, 'image')} without a patient: left out here.", "note"))
    return notes
