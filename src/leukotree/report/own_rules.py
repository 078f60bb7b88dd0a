"""Each arm decided by the rule of its own method, beside the one rule of the report.

The report compares all arms under one rule, so that a difference is one of the models. A reader may ask what
each method scores as its authors decide it. That comparison is secondary: it has no verdict and no p value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from leukotree.evaluation import decide
from leukotree.report import evidence
from leukotree.report.blocks import Block, Table, Text, interval, points, text
from leukotree.report.prose import verdicts as prose
from leukotree.report.summary import Run, StudySummary
from leukotree.report.summary import decided as leaves_by
from leukotree.spec import OF_LEAVES
from leukotree.stats import Comparison

LOSSES_OF_LEAVES = ("soft", "marginal")
"""Losses of the probabilities of leaves, which are products along their paths. A model that is trained by
them is decided by the most probable leaf, also if it has a head for each decision."""


def own_rule(variant: str, loss: str) -> decide.Rule:
    """The rule by which a method decides where nothing else is asked: `joint`, the most probable leaf, or
    `greedy`, top-down.

    `flat`, an ensemble of it, `logistic` and `neighbours`: the argmax over leaves. `base` and `multilabel`:
    top-down, the paper's rule. `multilabel` with `soft` (Bertinetto et al. 2020, who take the argmax over
    leaves) or with `marginal`, whose deepest level is the leaves: the most probable leaf.
    """
    return "joint" if variant in OF_LEAVES or loss in LOSSES_OF_LEAVES else "greedy"


def decided(run: Run) -> Run:
    """The run with its predictions by its own rule."""
    rule = own_rule(run.variant, run.loss)
    return dataclasses.replace(run, predicted=leaves_by(run, rule))


def blocks(summary: StudySummary, comparisons: Sequence[Comparison]) -> list[Block]:
    """The secondary table. A sentence where every arm's own rule is the rule of the report.

    comparisons: the declared ones, of images, with every arm by its own rule.
    """
    rules = {arm.name: _rules(arm.runs) for arm in summary.arms if arm.runs}
    compared = [row for row in comparisons if not math.isnan(row.mean)]
    if not compared:
        return []
    used = {rule for row in compared for name in (row.challenger, row.reference) for rule in rules[name]}
    if used == {summary.decision}:
        return [Text(f"Secondary: the own rule of each of these arms is `{summary.decision}`, too.", "note")]
    rows = [
        [
            f"{row.challenger} − {row.reference}",
            " − ".join(" or ".join(rules[name]) for name in (row.challenger, row.reference)),
            points(row.mean),
            interval(row.interval),
            points(row.pooled),
            interval(evidence.bootstrap(row)),
        ]
        for row in compared
    ]
    header = [
        "difference",
        "own rules",
        "mean over folds",
        "Nadeau-Bengio 95 %",
        "pooled over folds",
        "bootstrap 95 %, by patient",
    ]
    caption = "Secondary: each arm by its own rule. Macro F1 of images, in percentage points."
    return [
        Table(caption, header, rows, labels=2),
        text(prose.OWN_RULES, rule=summary.decision),
    ]


def _rules(runs: Sequence[Run]) -> list[str]:
    """The own rules of an arm's runs. There are two where a search chose the loss of each fold."""
    return sorted({own_rule(run.variant, run.loss) for run in runs})
