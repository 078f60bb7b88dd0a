"""The section about a grid: each cell against the first cell of its variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from leukotree import stats
from leukotree.report import figures, scores
from leukotree.report.blocks import (
    Block,
    Figure,
    Section,
    Table,
    interval,
    mean_sd,
    number,
    p_value,
    points,
    text,
)
from leukotree.report.prose import verdicts as prose
from leukotree.report.sections import comparison
from leukotree.report.summary import Arm, StudySummary
from leukotree.stats import Comparison, Fold

MOST_BARS = 24
"""With more differences there is no figure."""
Folds = Mapping[str, Mapping[int, Fold]]
"""Arm -> test fold -> its score."""


def section(summary: StudySummary) -> Section | None:
    """A table and a figure of the differences. None for a study without results of a grid."""
    cells = [arm for arm in summary.arms if arm.cell is not None]
    if not any(arm.runs for arm in cells):
        return None
    first: dict[str, Arm] = {}
    for arm in sorted(cells, key=lambda arm: arm.cell or 0):
        first.setdefault(arm.variant, arm)
    folds: Folds = {arm.name: comparison.of_arm(arm.runs) for arm in cells}
    # Cells without a run count too. So neither the reference nor the size of the family depends on which runs
    # have ended.
    pairs = [(arm.name, first[arm.variant].name) for arm in cells if arm is not first[arm.variant]]
    comparisons = stats.compare(folds, pairs, scores.ratio(summary), summary.rope)
    blocks: list[Block] = [
        _table(summary, cells, folds, comparisons),
        text(prose.ABLATION, comparisons=len(pairs)),
    ]
    known = [row for row in comparisons if not math.isnan(row.mean)]
    if 0 < len(known) <= MOST_BARS:
        blocks.append(_figure(summary, known))
    return Section("Ablation", blocks)


def _figure(summary: StudySummary, comparisons: Sequence[Comparison]) -> Figure:
    bars = [
        figures.Bar(
            row.challenger,
            "mean over folds, Nadeau-Bengio",
            row.mean,
            *(row.interval or (math.nan, math.nan)),
        )
        for row in comparisons
    ]
    return Figure(
        "ablation",
        "Differences from the reference cell of the variant. Grey: the region of practical equivalence "
        f"(±{100 * summary.rope:.1f} points).",
        figures.forest(bars, summary.rope, "difference in macro F1, percentage points"),
    )


def _table(
    summary: StudySummary, cells: Sequence[Arm], folds: Folds, comparisons: Sequence[Comparison]
) -> Table:
    keys = list(dict.fromkeys(key for arm in cells for key in arm.values))
    of_arm = {row.challenger: row for row in comparisons}
    rows = []
    for arm in sorted(cells, key=lambda arm: (summary.variants.index(arm.variant), arm.cell or 0)):
        values = [number(arm.values[key]) if key in arm.values else "–" for key in keys]
        score = mean_sd([fold.score for fold in folds[arm.name].values()])
        difference = ["reference", "–", "–", "–"]
        if row := of_arm.get(arm.name):
            difference = [points(row.mean), interval(row.interval), p_value(row.p_holm), row.verdict]
        rows.append([arm.variant, str(arm.cell), *values, score, *difference, str(len(folds[arm.name]))])
    result = ["macro F1", "difference", "Nadeau-Bengio 95 %", "Holm p", "verdict", "folds"]
    return Table(
        "Each cell of the grid, image level, in per cent: mean ± standard deviation over folds, and the "
        "difference from the first cell of the same variant, as a mean over folds with its interval.",
        ["variant", "cell", *keys, *result],
        rows,
        labels=2 + len(keys),
    )
