"""The sections about decisions: all rules side by side, what stopping early buys, and cells between two
leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leukotree.evaluation import decide, metrics, tree_scores
from leukotree.report import figures, prose, scores
from leukotree.report.blocks import Figure, Section, Table, mean_sd, percent, text
from leukotree.report.sections import calibration
from leukotree.report.summary import Run, StudySummary

THRESHOLDS = np.linspace(0, 1, 101)
NAMED = (0.5, 0.7, 0.9)
"""Thresholds of the table; the figure has all."""
SHARE = 0.25
"""A cell is between two leaves if both have at least this probability."""


def section(summary: StudySummary) -> Section:
    """The table of rules and the abstention curve."""
    curves = {arm.name: _curve(arm.runs) for arm in scores.shown(summary)}
    rows = [
        [name, f"{at:g}", *(percent(float(value[_place(at)])) for value in curve)]
        for name, curve in curves.items()
        for at in NAMED
    ]
    header = ["variant", "threshold", "reach a leaf", "accuracy of those", "hierarchical precision of all"]
    caption = (
        "Stopping early: the greedy descent goes on only while P(node) is above a threshold; mean over runs."
    )
    return Section(
        "Decision rules",
        [
            _rules(summary),
            text(prose.DECISIONS, rule=_name(summary.decision)),
            Figure("abstention", caption, figures.abstention(curves)),
            Table("Of which, in per cent.", header, rows, labels=2),
        ],
    )


def _rules(summary: StudySummary) -> Table:
    """Mean ± sd over folds of the mean over seeds, for each arm and rule."""
    rows = []
    for arm in scores.shown(summary):
        for rule in decide.RULES:
            found = pd.DataFrame([{"fold": run.test_fold, **_by_rule(run, rule)} for run in arm.runs])
            means = found.groupby("fold").mean()
            severity = means["severity"].mean()
            own = " (this study's)" if rule == summary.decision else ""
            contradictions = mean_sd(means["contradictions"].tolist()) if rule == "marginal" else "–"
            rows.append(
                [
                    arm.name,
                    _name(rule) + own,
                    *(mean_sd(means[key].tolist()) for key in ("macro_f1", "h_f1")),
                    "–" if np.isnan(severity) else f"{severity:.2f}",
                    contradictions,
                ]
            )
    header = ["variant", "rule", "macro F1", "hierarchical F1", "LCA height of errors", "contradictions"]
    return Table(
        "All rules on the same predictions; shares in per cent, mean ± standard deviation over folds.",
        header,
        rows,
        labels=2,
    )


def _by_rule(run: Run, rule: decide.Rule) -> dict[str, float]:
    n_leaves = len(run.taxonomy.leaves)
    predicted = decide.leaves(run.logp, run.taxonomy, rule)
    counts = metrics.confusion(run.true, predicted, n_leaves)
    return {
        "macro_f1": metrics.macro_f1(run.true, predicted, n_leaves),
        "h_f1": float(tree_scores.f1(counts, run.taxonomy)),
        "severity": float(tree_scores.lca_height(counts, run.taxonomy, errors_only=True)),
        "contradictions": decide.contradictions(run.logp, run.taxonomy),
    }


def _curve(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage, accuracy and hierarchical precision at THRESHOLDS: (T,) each, mean over the runs that define
    them."""
    curves = [decide.abstention(run.true, run.logp, run.taxonomy, THRESHOLDS) for run in runs]
    coverage, accuracy, precision = (
        pd.DataFrame([getattr(curve, name) for curve in curves]).mean().to_numpy()
        for name in ("coverage", "accuracy", "precision")
    )
    return coverage, accuracy, precision


def _place(threshold: float) -> int:
    return int(np.abs(THRESHOLDS - threshold).argmin())


def _name(rule: str) -> str:
    return rule.replace("_", " ")


def mixed(summary: StudySummary) -> Section:
    """How many cells lie between two leaves, and how far apart in the tree these are; by scaled probabilities
    where there are some, since a focal loss alone makes them modest."""
    rows = []
    arms = scores.shown(summary)
    taxonomy = arms[0].runs[0].taxonomy
    heights = range(1, taxonomy.heights[taxonomy.root] + 1)
    for arm in arms:
        runs, temperatures = calibration.judged(summary, arm)
        true = np.concatenate([run.true for run in runs])
        right = np.concatenate([run.predicted for run in runs]) == true
        found = decide.mixed(
            np.concatenate([calibration.scaled(run, temperatures) for run in runs]), taxonomy
        )
        between = found.mass * found.ratio / (1 + found.ratio) >= SHARE
        either = (true == found.first) | (true == found.second)
        shares = [percent(float((between & (found.height == height)).mean())) for height in heights]
        cells = [
            percent(float(between.mean())),
            *shares,
            *(_share(part) for part in (right[between], right[~between], either[between])),
        ]
        rows.append(
            [arm.name, "scaled" if temperatures else "raw", *cells, _pair(found, between, taxonomy.leaves)]
        )
    header = [
        "variant",
        "probabilities",
        "between two leaves",
        *(f"LCA height {height}" for height in heights),
        "accuracy of those",
        "accuracy of the others",
        "one of the two is true",
        "most common pair",
    ]
    caption = f"Cells whose two most probable leaves have {100 * SHARE:.0f} % or more each; all folds and seeds pooled, in per cent."
    return Section("Cells between two leaves", [Table(caption, header, rows, labels=2), text(prose.MIXED)])


def _share(right: np.ndarray) -> str:
    return percent(float(right.mean()) if len(right) else float("nan"))


def _pair(found: decide.Mixed, between: np.ndarray, leaves: Sequence[str]) -> str:
    """The two leaves, in preorder, that most of these cells lie between, and their share of them."""
    if not between.any():
        return "–"
    low, high = np.sort([found.first[between], found.second[between]], axis=0)
    counts = np.bincount(low * len(leaves) + high)
    one, other = divmod(int(counts.argmax()), len(leaves))
    return f"{leaves[one]} and {leaves[other]} ({percent(counts.max() / counts.sum())})"
