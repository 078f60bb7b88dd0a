"""The section about cells between two leaves, and how far apart these leaves are in the tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leukotree.evaluation import decide
from leukotree.report import scores
from leukotree.report.blocks import Section, Table, percent, text
from leukotree.report.prose import answers as prose
from leukotree.report.sections import calibration
from leukotree.report.summary import Arm, StudySummary

SHARE = 0.25
"""A cell is between two leaves if both have at least this probability."""


def section(summary: StudySummary) -> Section:
    """A row per arm. Probabilities are scaled where there are temperatures, because a focal loss alone makes
    raw ones underconfident."""
    arms = scores.shown(summary)
    taxonomy = arms[0].runs[0].taxonomy
    heights = range(1, taxonomy.heights[taxonomy.root] + 1)
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
    caption = (
        f"Cells whose two most probable leaves have {100 * SHARE:.0f} % or more each. All folds and seeds "
        "are pooled, in per cent."
    )
    rows = [_row(summary, arm, heights) for arm in arms]
    return Section("Cells between two leaves", [Table(caption, header, rows, labels=2), text(prose.MIXED)])


def _row(summary: StudySummary, arm: Arm, heights: Sequence[int]) -> list[str]:
    runs, temperatures = calibration.judged(summary, arm)
    taxonomy = runs[0].taxonomy
    true = np.concatenate([run.true for run in runs])
    right = np.concatenate([run.predicted for run in runs]) == true
    logp = np.concatenate([calibration.scaled(run, temperatures) for run in runs])
    mixed = decide.mixed(logp, taxonomy)
    between = mixed.mass * mixed.ratio / (1 + mixed.ratio) >= SHARE
    either = (true == mixed.first) | (true == mixed.second)
    return [
        arm.name,
        "scaled" if temperatures else "raw",
        _share(between),
        *(_share(between & (mixed.height == height)) for height in heights),
        *(_share(part) for part in (right[between], right[~between], either[between])),
        _pair(mixed, between, taxonomy.leaves),
    ]


def _share(cells: np.ndarray) -> str:
    return percent(float(cells.mean()) if len(cells) else float("nan"))


def _pair(mixed: decide.Mixed, between: np.ndarray, leaves: Sequence[str]) -> str:
    """The two leaves that most of the cells lie between, in preorder, and their share of these cells."""
    if not between.any():
        return "–"
    low, high = np.sort([mixed.first[between], mixed.second[between]], axis=0)
    counts = np.bincount(low * len(leaves) + high)
    first, second = divmod(int(counts.argmax()), len(leaves))
    return f"{leaves[first]} and {leaves[second]} ({percent(counts.max() / counts.sum())})"
