"""From runs to score tables: one row per run, then the mean over seeds within a fold, then mean and spread over folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import metrics
from leukotree.metrics import Groups, Rule
from leukotree.report.collect import Run, StudySummary
from leukotree.report.compare import Difference, corrected_difference

IMAGE_SCORES = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")


class Pooled(NamedTuple):
    """Groups given their true leaf, of all groups of all folds: `right` is a mean over seeds and may be fractional."""

    right: float
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        return metrics.wilson(self.right, self.n)


def groups(run: Run, rule: Rule) -> Groups:
    return metrics.by_patient(run.images["patient"].tolist(), run.true, run.logp, run.taxonomy, rule)


def unit(runs: Sequence[Run]) -> str | None:
    """What patient-level scores count: "patient", "patient x leaf" where a patient has several leaves, None without ids."""
    found = {(fold.test_fold, name, leaf) for fold in one_per_fold(runs)
             for name, leaf in zip(fold.images["patient"], fold.true, strict=True) if name}  # fmt: skip
    if not found:
        return None
    return "patient" if len({(fold, name) for fold, name, _ in found}) == len(found) else "patient x leaf"


def one_per_fold(runs: Sequence[Run]) -> list[Run]:
    """Any one run of each test fold, in order of folds: together they hold each tested image once."""
    return [run for _, run in sorted({run.test_fold: run for run in reversed(runs)}.items())]


def per_run(runs: Sequence[Run]) -> pd.DataFrame:
    """A row per run: variant, fold, seed, images, the image scores, groups, and per rule `<rule>:right|accuracy|macro_f1`."""
    rows = []
    for run in runs:
        n_leaves = len(run.taxonomy.leaves)
        row: dict[str, object] = {"variant": run.variant, "fold": run.test_fold, "seed": run.seed, "images": len(run.true)}
        row |= metrics.summary(run.true, run.predicted, n_leaves)
        for rule in metrics.RULES:
            found = groups(run, rule)
            score = metrics.summary(found.true, found.predicted, n_leaves)
            right = int((found.true == found.predicted).sum())
            row |= {"groups": len(found.true), f"{rule}:right": right}
            row |= {f"{rule}:{key}": score[key] for key in ("accuracy", "macro_f1")}
        for level, share in enumerate(metrics.level_accuracy(run.true, run.predicted, run.taxonomy), 1):
            row[f"level:{level}"] = share.value
        for node, share in metrics.decision_accuracy(run.true, run.logp, run.taxonomy).items():
            row[f"decision:{node}"] = share.value
        rows.append(row)
    return pd.DataFrame(rows)


def per_fold(by_run: pd.DataFrame) -> pd.DataFrame:
    """Seeds averaged within a fold: a row per (variant, fold), with `seeds`, how many there were."""
    grouped = by_run.groupby(["variant", "fold"], sort=False)
    return grouped.mean().drop(columns="seed").assign(seeds=grouped.size()).reset_index()


def pooled(by_fold: pd.DataFrame, variant: str, rule: Rule) -> Pooled:
    rows = by_fold[by_fold["variant"] == variant]
    return Pooled(float(rows[f"{rule}:right"].sum()), int(rows["groups"].sum()))


def pooled_per_leaf(runs: Sequence[Run], rule: Rule) -> list[Pooled]:
    """Of one variant's runs, L entries: how many groups of a leaf were given it. Averaged over seeds, summed over folds."""
    n_leaves = len(runs[0].taxonomy.leaves)
    right, n = np.zeros(n_leaves), np.zeros(n_leaves)
    for fold in {run.test_fold for run in runs}:
        seeds = [groups(run, rule) for run in runs if run.test_fold == fold]
        for found in seeds:
            right += np.bincount(found.true[found.true == found.predicted], minlength=n_leaves) / len(seeds)
        n += np.bincount(seeds[0].true, minlength=n_leaves)
    return [Pooled(float(k), int(of)) for k, of in zip(right, n, strict=True)]


def confusion(runs: Sequence[Run]) -> np.ndarray:
    """(L, L) counts over all folds and seeds of the runs: an image counts once per seed."""
    return sum((metrics.confusion(r.true, r.predicted, len(r.taxonomy.leaves)) for r in runs[1:]),
               start=metrics.confusion(runs[0].true, runs[0].predicted, len(runs[0].taxonomy.leaves)))  # fmt: skip


def ratio(summary: StudySummary) -> float:
    """n_test / n_train of an outer fold: from the image counts of the shards, or 1 / (K - 1) for K folds without them."""
    folds = int((summary.study.get("folds") or {}).get("outer") or len({run.test_fold for run in summary.runs}))
    test = np.mean([len(run.true) for run in one_per_fold(summary.runs)])
    total = sum(((summary.dataset or {}).get("counts") or {}).values())
    return float(test / (total - test)) if total > test else 1 / max(folds - 1, 1)


def difference(summary: StudySummary, by_fold: pd.DataFrame, challenger: str, reference: str, score: str) -> Difference:
    """Challenger minus reference over the folds that both have."""
    table = by_fold.pivot(index="fold", columns="variant", values=score)
    if not {challenger, reference} <= set(table):
        return corrected_difference([], 0.0)
    return corrected_difference((table[challenger] - table[reference]).dropna().tolist(), ratio(summary))
