"""The section about a grid's learning rates: the score of each, beside the most common leaf and the best
rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from leukotree.records import runfolder
from leukotree.report import scores
from leukotree.report.blocks import Block, Section, Table, Text, number, percent, points, text
from leukotree.report.prose import search as prose
from leukotree.report.sections import comparison
from leukotree.report.sections.settings import KEYS
from leukotree.report.summary import Arm, Run, StudySummary

RATE = "optim.lr"
PAPER_RATE = 1e-6

Rates = Mapping[float, Arm]
"""Learning rate -> the arm that has it, in ascending order. The arms differ in nothing else."""


def section(summary: StudySummary) -> Section | None:
    """A table of the rates, and a text about the paper's rate. None unless a grid varies the learning
    rate."""
    groups = _groups(summary)
    if not groups:
        return None
    common, guess = scores.most_common(summary.runs)
    floor = guess["macro_f1"]
    rows: list[list[str]] = []
    texts: list[Text] = []
    for (variant, others), rates in groups.items():
        means = {rate: _score(arm) for rate, arm in rates.items()}
        rows += [[variant, others or "–", *row] for row in _rows(rates, means, floor)]
        if PAPER_RATE in rates:
            name = f"{variant}{f' ({others})' if others else ''}"
            texts.append(_paper_rate(name, rates[PAPER_RATE], means, common, floor))
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
    caption = "Mean over folds and seeds. Scores are in per cent, differences in percentage points."
    optim = summary.base.optim
    budget = f"{optim.epochs} epochs" if optim.steps is None else f"{optim.steps} steps"
    blocks: list[Block] = [*texts, Table(caption, header, rows, labels=3), text(prose.RATES, budget=budget)]
    return Section("What a learning rate can learn", blocks)


def _groups(summary: StudySummary) -> dict[tuple[str, str], Rates]:
    """(variant, the other keys of the grid as text) -> its rates, where there is more than one."""
    groups: dict[tuple[str, str], dict[float, Arm]] = {}
    for arm in summary.arms:
        if arm.cell is None or not arm.runs or RATE not in arm.values:
            continue
        others = [
            f"{key.rpartition('.')[2]} {number(value)}" for key, value in arm.values.items() if key != RATE
        ]
        groups.setdefault((arm.variant, ", ".join(others)), {})[float(arm.values[RATE])] = arm
    return {name: dict(sorted(rates.items())) for name, rates in groups.items() if len(rates) > 1}


def _rows(rates: Rates, means: Mapping[float, float], floor: float) -> list[list[str]]:
    """The table's rows of one group, from the column of the learning rate on. floor: the macro F1 of always
    answering the most common leaf."""
    best = max(means.values())
    rows = []
    for rate, arm in rates.items():
        first, last, moved = _training(arm.runs)
        mean = means[rate]
        differences = [points(mean - floor), points(mean - best)]
        rows.append([number(rate), percent(mean), *differences, _fall(first, last), number(moved)])
    return rows


def _paper_rate(name: str, arm: Arm, means: Mapping[float, float], common: str, floor: float) -> Text:
    first, last, moved = _training(arm.runs)
    best = max(means, key=means.__getitem__)
    return text(
        prose.PAPER_RATE,
        variant=name,
        common=common,
        above=points(means[PAPER_RATE] - floor),
        below=points(means[PAPER_RATE] - means[best]),
        best=number(best),
        fall=_fall(first, last),
        moved=number(moved),
    )


def _score(arm: Arm) -> float:
    """The macro F1 of the images: the mean over folds of the mean over seeds."""
    folds = comparison.of_arm(arm.runs)
    return sum(fold.score for fold in folds.values()) / len(folds)


def _training(runs: Sequence[Run]) -> tuple[float, float, float]:
    """The mean training loss of the first epoch, that of the last epoch, and the sum of the learning rates
    over the steps of the longest stage. Each is a mean over the runs, and NaN where metrics.jsonl has no
    steps."""
    rows = []
    for run in runs:
        steps = pd.DataFrame(
            [row for row in runfolder.read_metrics(run.folder) if row.get("kind") == "step" and "loss" in row]
        )
        if steps.empty:
            continue
        losses = steps.groupby(["epoch", "stage"])["loss"].mean().groupby("epoch").sum()
        rows.append((losses.iloc[0], losses.iloc[-1], steps.groupby("stage")["lr"].sum().max()))
    means = pd.DataFrame(rows, columns=["first", "last", "moved"]).astype(float).mean()
    return float(means["first"]), float(means["last"]), float(means["moved"])


def _fall(first: float, last: float) -> str:
    return "–" if math.isnan(first) else f"{number(first)} to {number(last)}"
