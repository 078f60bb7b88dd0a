"""The section about decision rules: all rules side by side, and the effect of stopping above the leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leukotree.evaluation import clinical, decide, metrics, tree_scores
from leukotree.report import figures, scores
from leukotree.report.blocks import Figure, Section, Table, mean_sd, percent, text
from leukotree.report.prose import answers as prose
from leukotree.report.summary import Run, StudySummary, decided

THRESHOLDS = np.linspace(0, 1, 101)
NAMED = (0.5, 0.7, 0.9)
"""The thresholds of the table. The figure has all of THRESHOLDS."""


def section(summary: StudySummary) -> Section:
    """The table of rules, and the abstention curve as figure and table."""
    curves = {arm.name: _curve(arm.runs) for arm in scores.shown(summary)}
    rows = [
        [name, f"{at:g}", *(percent(float(value[_place(at)])) for value in curve)]
        for name, curve in curves.items()
        for at in NAMED
    ]
    header = ["variant", "threshold", "reach a leaf", "accuracy of those", "hierarchical precision of all"]
    caption = (
        "Abstention: the greedy descent goes on only while P(node) is above a threshold. Each curve is a "
        "mean over runs."
    )
    return Section(
        "Decision rules",
        [
            _rules(summary),
            text(prose.RULES_OF_DECISION, rule=_name(summary.decision)),
            Figure("abstention", caption, figures.abstention(curves)),
            Table("Some thresholds of these curves, in per cent.", header, rows, labels=2),
        ],
    )


def _rules(summary: StudySummary) -> Table:
    """A row per arm and rule: mean ± standard deviation over folds of the mean over seeds."""
    rows = []
    for arm in scores.shown(summary):
        for rule in decide.RULES:
            of_runs = pd.DataFrame([{"fold": run.test_fold, **_by_rule(run, rule)} for run in arm.runs])
            means = of_runs.groupby("fold").mean()
            height = means["lca_height"].mean()
            own = " (this study's)" if rule == summary.decision else ""
            cells = [
                *(mean_sd(means[key].tolist()) for key in ("macro_f1", "h_f1")),
                "–" if np.isnan(height) else f"{height:.2f}",
                f"{means['cost'].mean():.2f}",
                mean_sd(means["contradictions"].tolist()) if rule == "marginal" else "–",
            ]
            rows.append([arm.name, _name(rule) + own, *cells])
    header = [
        "variant",
        "rule",
        "macro F1",
        "hierarchical F1",
        "LCA height of errors",
        "cost",
        "contradictions",
    ]
    return Table(
        "All rules on the same predictions. Shares are in per cent, as mean ± standard deviation over folds.",
        header,
        rows,
        labels=2,
    )


def _by_rule(run: Run, rule: decide.Rule) -> dict[str, float]:
    """The scores of a run under a rule: macro_f1, h_f1, lca_height (of the errors), cost and
    contradictions."""
    n_leaves = len(run.taxonomy.leaves)
    predicted = decided(run, rule)
    counts = metrics.confusion(run.true, predicted, n_leaves)
    return {
        "macro_f1": metrics.macro_f1(run.true, predicted, n_leaves),
        "h_f1": float(tree_scores.f1(counts, run.taxonomy)),
        "lca_height": float(tree_scores.lca_height(counts, run.taxonomy, errors_only=True)),
        "cost": float(clinical.mean_cost(counts, run.taxonomy.costs)),
        "contradictions": decide.contradictions(run.logp, run.taxonomy),
    }


def _curve(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage, accuracy and hierarchical precision at THRESHOLDS, (T,) each: the mean over the runs in which
    they are defined."""
    curves = [decide.abstention(run.true, run.logp, run.taxonomy, THRESHOLDS) for run in runs]
    coverage, accuracy, precision = (
        pd.DataFrame([getattr(curve, name) for curve in curves]).mean().to_numpy()
        for name in ("coverage", "accuracy", "precision")
    )
    return coverage, accuracy, precision


def _place(threshold: float) -> int:
    """The index of a threshold in THRESHOLDS."""
    return int(np.abs(THRESHOLDS - threshold).argmin())


def _name(rule: str) -> str:
    return rule.replace("_", " ")
