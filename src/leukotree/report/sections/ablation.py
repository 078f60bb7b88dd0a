"""The sections about a grid: each cell against the first of its variant, and what a learning rate can and
cannot learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from leukotree import stats
from leukotree.records import runfolder
from leukotree.report import figures, prose, scores
from leukotree.report.blocks import (
    Block,
    Figure,
    Section,
    Table,
    interval,
    mean_sd,
    number,
    p_value,
    percent,
    points,
    text,
)
from leukotree.report.sections import comparison
from leukotree.report.sections.settings import KEYS, value_of
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.stats import Comparison, Fold

RATE = "optim.lr"
PAPER_RATE = 1e-6
MOST_BARS = 24
"""Differences that the figure shows."""
Folds = Mapping[str, Mapping[int, Fold]]
"""Arm -> test fold -> its score."""


def section(summary: StudySummary) -> Section | None:
    """None for a study without results of a grid."""
    cells = [arm for arm in summary.arms if arm.cell is not None]
    if not any(arm.runs for arm in cells):
        return None
    first: dict[str, Arm] = {}
    for arm in sorted(cells, key=lambda arm: arm.cell or 0):
        first.setdefault(arm.variant, arm)
    folds: Folds = {arm.name: comparison.of_arm(arm.runs) for arm in cells}
    # Of all cells, also those without a run yet: neither the reference nor the size of the family follows
    # what has ended.
    pairs = [(arm.name, first[arm.variant].name) for arm in cells if arm is not first[arm.variant]]
    found = stats.compare(folds, pairs, scores.ratio(summary), summary.rope)
    blocks: list[Block] = [_table(summary, cells, folds, found), text(prose.ABLATION, comparisons=len(pairs))]
    known = [row for row in found if not math.isnan(row.mean)]
    if 0 < len(known) <= MOST_BARS:
        bars = [
            figures.Bar(row.challenger, "Nadeau-Bengio", row.mean, *(row.interval or (math.nan, math.nan)))
            for row in known
        ]
        caption = f"Differences from the reference cell of the variant; grey: equivalent (±{100 * summary.rope:.1f} points)."
        blocks.append(
            Figure(
                "ablation",
                caption,
                figures.forest(bars, summary.rope, "difference in macro F1, percentage points"),
            )
        )
    return Section("Ablation", blocks)


def _table(summary: StudySummary, cells: Sequence[Arm], folds: Folds, found: Sequence[Comparison]) -> Table:
    keys = list(dict.fromkeys(key for arm in cells for key in arm.values))
    of = {row.challenger: row for row in found}
    rows = []
    for arm in sorted(cells, key=lambda arm: (summary.variants.index(arm.variant), arm.cell or 0)):
        values = [number(arm.values[key]) if key in arm.values else "–" for key in keys]
        score = mean_sd([fold.score for fold in folds[arm.name].values()])
        row = of.get(arm.name)
        against = (
            [points(row.mean), interval(row.interval), p_value(row.p_holm), row.verdict]
            if row
            else ["reference", "–", "–", "–"]
        )
        rows.append([arm.variant, str(arm.cell), *values, score, *against, str(len(folds[arm.name]))])
    header = [
        "variant",
        "cell",
        *keys,
        "macro F1",
        "difference",
        "95 % interval",
        "Holm p",
        "verdict",
        "folds",
    ]
    return Table(
        "Each cell of the grid, images, in per cent: mean ± standard deviation over folds, and the difference from the "
        "first cell of the same variant.",
        header,
        rows,
        labels=2 + len(keys),
    )


def sensitivity(summary: StudySummary) -> Section | None:
    """What each learning rate of a grid learns, beside the most common leaf and the best rate. None unless it
    varies there."""
    groups: dict[tuple[str, str], dict[float, Arm]] = {}
    for arm in summary.arms:
        if arm.cell is not None and arm.runs and RATE in arm.values:
            others = ", ".join(
                f"{key.rpartition('.')[2]} {number(value)}"
                for key, value in arm.values.items()
                if key != RATE
            )
            groups.setdefault((arm.variant, others), {})[float(arm.values[RATE])] = arm
    groups = {name: dict(sorted(rates.items())) for name, rates in groups.items() if len(rates) > 1}
    if not groups:
        return None
    common, guess = scores.most_common(summary.runs)
    floor = guess["macro_f1"]
    rows, told = [], []
    for (variant, others), rates in groups.items():
        means = {rate: _score(arm) for rate, arm in rates.items()}
        best = max(means, key=means.__getitem__)
        for rate, arm in rates.items():
            first, last, moved = _training(arm.runs)
            rows.append(
                [
                    variant,
                    others or "–",
                    number(rate),
                    percent(means[rate]),
                    points(means[rate] - floor),
                    points(means[rate] - means[best]),
                    _fall(first, last),
                    number(moved),
                ]
            )
        if PAPER_RATE in rates:
            first, last, moved = _training(rates[PAPER_RATE].runs)
            told.append(
                text(
                    prose.PAPER_RATE,
                    variant=f"{variant}{f' ({others})' if others else ''}",
                    common=common,
                    above=points(means[PAPER_RATE] - floor),
                    below=points(means[PAPER_RATE] - means[best]),
                    best=number(best),
                    fall=_fall(first, last),
                    moved=number(moved),
                )
            )
    header = [
        "variant",
        "other keys",
        KEYS[RATE][0],
        "macro F1",
        f"above always {common}",
        "from the best rate",
        "training loss, first to last epoch",
        "sum of the rates, backbone",
    ]
    caption = "Mean over folds and seeds; scores in per cent, differences in percentage points."
    epochs = number(value_of(summary.base, "optim.epochs"))
    return Section(
        "What a learning rate can learn",
        [
            *told,
            Table(caption, header, rows, labels=3),
            text(prose.RATES, epochs=epochs),
        ],
    )


def _score(arm: Arm) -> float:
    folds = comparison.of_arm(arm.runs)
    return sum(fold.score for fold in folds.values()) / len(folds)


def _training(runs: Sequence[Run]) -> tuple[float, float, float]:
    """Mean training loss of the first and the last epoch, and the sum of the learning rates over the steps of
    the longest stage; mean over the runs, NaN where metrics.jsonl has no steps."""
    found = []
    for run in runs:
        steps = pd.DataFrame(
            [row for row in runfolder.read_metrics(run.folder) if row.get("kind") == "step" and "loss" in row]
        )
        if steps.empty:
            continue
        losses = steps.groupby(["epoch", "stage"])["loss"].mean().groupby("epoch").sum()
        found.append((losses.iloc[0], losses.iloc[-1], steps.groupby("stage")["lr"].sum().max()))
    means = pd.DataFrame(found, columns=["first", "last", "moved"]).astype(float).mean()
    return float(means["first"]), float(means["last"]), float(means["moved"])


def _fall(first: float, last: float) -> str:
    return "–" if math.isnan(first) else f"{number(first)} to {number(last)}"
