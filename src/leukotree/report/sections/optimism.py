"""The part of the section about searches that compares inner with outer scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leukotree.evaluation import metrics
from leukotree.report.blocks import Block, Table, points, text
from leukotree.report.prose import search as prose
from leukotree.report.summary import Search, StudySummary, decided

SEARCH, AGAIN, POSTERIOR = "in the search", "run again", "posterior mean"


def blocks(summary: StudySummary) -> list[Block]:
    """A row per variant: the difference between the inner and the outer score of the chosen values, and its
    spread. Then why it can have either sign."""
    rows = []
    for variant, searches in summary.searches.items():
        differences: dict[str, list[float]] = {SEARCH: [], AGAIN: [], POSTERIOR: []}
        for search in searches.values():
            outer = outer_score(summary, search)
            inner_scores = (inner_score(search), rerun_score(search), posterior_mean(search))
            for name, inner in zip(differences, inner_scores, strict=True):
                if not math.isnan(inner - outer):
                    differences[name].append(inner - outer)
        rows += [[f"`{variant}`", name, *_spread(values)] for name, values in differences.items() if values]
    if not rows:
        return [text(prose.OPTIMISM)]
    header = ["variant", "inner score", "mean difference", "standard deviation", "lowest", "highest", "folds"]
    caption = (
        "Inner minus outer macro F1 of the chosen values, in percentage points. A positive difference: the "
        "inner score was too high."
    )
    return [Table(caption, header, rows, labels=2), text(prose.OPTIMISM)]


def inner_score(search: Search) -> float:
    """The score of the chosen trial in the search. NaN without one."""
    chosen = str((search.best or {}).get("trial"))
    rows = search.trials[search.trials["trial"] == chosen]
    return float(rows["macro_f1"].iloc[0]) if len(rows) else math.nan


def rerun_score(search: Search) -> float:
    """The mean score of the chosen trial on the fresh seeds. NaN without re-runs of it."""
    if search.best is None or search.reruns is None:
        return math.nan
    own = search.reruns.loc[search.reruns["trial"] == str(search.best["trial"]), "macro_f1"]
    return float(own.mean(skipna=False)) if len(own) else math.nan


def posterior_mean(search: Search) -> float:
    """The posterior mean of the chosen trial. NaN where another score chose."""
    by_it = search.best is not None and search.best.get("choice") == "posterior"
    return float(search.best["value"]) if search.best and by_it else math.nan


def outer_score(summary: StudySummary, search: Search) -> float:
    """The macro F1 of the runs with the chosen values on the search's outer fold, mean over seeds; NaN
    without a run. It is decided by the greedy rule, as in the search."""
    runs = [
        run
        for arm in summary.arms
        if arm.cell is None and arm.variant == search.variant
        for run in arm.runs
        if run.test_fold == search.test_fold
    ]
    values = [metrics.macro_f1(run.true, decided(run, "greedy"), len(run.taxonomy.leaves)) for run in runs]
    return sum(values) / len(values) if values else math.nan


def _spread(values: Sequence[float]) -> list[str]:
    """Mean, sample standard deviation, lowest, highest and number of differences as cells. One difference has
    no spread."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return [points(mean), "–", "–", "–", "1"]
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    ends = [points(min(values)), points(max(values))]
    return [points(mean), f"{100 * deviation:.1f}", *ends, str(len(values))]
