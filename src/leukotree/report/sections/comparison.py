"""Is a hierarchy better? The verdict on the declared comparisons, for images and for patients, with what
speaks for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from leukotree import stats
from leukotree.evaluation import metrics
from leukotree.report import figures, prose, scores
from leukotree.report.blocks import (
    Block,
    Figure,
    Section,
    Table,
    Text,
    interval,
    p_value,
    percent,
    plural,
    points,
    probability,
    text,
)
from leukotree.report.summary import Run, StudySummary
from leukotree.stats import Comparison, Fold

MOST_NAMED = 4
"""Comparisons that the first lines tell one by one."""


@dataclass(frozen=True)
class Compared:
    """The declared comparisons at both levels; `patients` is empty where images carry no patient."""

    images: Sequence[Comparison]
    patients: Sequence[Comparison]
    unit: str | None

    @property
    def levels(self) -> list[tuple[str, Sequence[Comparison]]]:
        return [("image", self.images), *([(self.unit, self.patients)] if self.unit else [])]


def compare(summary: StudySummary) -> list[Comparison]:
    """The declared comparisons by the macro-F1 of images: the primary family."""
    return _compare(summary, _of_images)


def compared(summary: StudySummary) -> Compared:
    """Both levels; the comparisons of one level are a family of their own."""
    unit = scores.unit(summary.runs)
    leaves = scores.leaves_of_patients(summary.runs)
    patients = (
        _compare(summary, partial(_of_groups, summary, leaves), partial(_macro_f1, leaves)) if unit else []
    )
    return Compared(compare(summary), patients, unit)


def of_arm(runs: Sequence[Run]) -> dict[int, Fold]:
    """Test fold -> macro-F1 and confusions of the images of one arm."""
    return {fold: _of_images(seeds) for fold, seeds in scores.by_fold(runs).items()}


def _compare(
    summary: StudySummary,
    fold_of: Callable[[Sequence[Run]], Fold],
    statistic: stats.Statistic = stats.macro_f1,
) -> list[Comparison]:
    named = {name for pair in summary.primary for name in pair}
    # A fold without a single patient has no score by patient.
    arms = {
        arm.name: {
            fold: found
            for fold, seeds in scores.by_fold(arm.runs).items()
            if not math.isnan((found := fold_of(seeds)).score)
        }
        for arm in summary.arms
        if arm.name in named
    }
    return stats.compare(arms, summary.primary, scores.ratio(summary), summary.rope, statistic)


def _macro_f1(leaves: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    return stats.f1(confusion)[..., leaves].mean(axis=-1)


def _of_images(runs: Sequence[Run]) -> Fold:
    """runs: one per seed, of one fold."""
    values = [metrics.macro_f1(run.true, run.predicted, len(run.taxonomy.leaves)) for run in runs]
    return Fold(sum(values) / len(values), scores.image_clusters(runs))


def _of_groups(summary: StudySummary, leaves: np.ndarray, runs: Sequence[Run]) -> Fold:
    values = []
    for run in runs:
        found = scores.groups(run, "mode", summary.decision)
        values.append(metrics.macro_f1(found.true, found.predicted, len(run.taxonomy.leaves), leaves))
    return Fold(sum(values) / len(values), scores.group_clusters(runs, summary.decision))


def headline(summary: StudySummary, found: Compared) -> Block:
    """The verdicts in one paragraph, as preliminary while runs of the declared comparisons are missing."""
    named = {name for pair in summary.primary for name in pair}
    missing = sum(one.arm in named for one in summary.missing)
    total = missing + sum(run.arm in named for run in summary.runs)
    early = f"Preliminary, {total - missing} of {total} runs: " if missing and found.images else ""
    verdict = _headline(found)
    return Text(f"{early}{verdict[:1].lower()}{verdict[1:]}" if early else verdict)


def _headline(found: Compared) -> str:
    if not found.images:
        return (
            "No verdict: the study declares no comparison (`primary`), and has no `flat` arm to compare with."
        )
    if len(found.images) > MOST_NAMED:
        verdicts = [row.verdict for row in found.images]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        decided = [row for row in found.images if row.verdict in ("better", "worse", "equivalent")][
            :MOST_NAMED
        ]
        named = "; ".join(f"`{row.challenger}` against `{row.reference}` is {row.verdict}" for row in decided)
        return f"Of {len(verdicts)} declared comparisons by the macro F1 of images: {counts}.{f' {named}.' if named else ''}"
    told = "; ".join(
        f"`{row.challenger}` against `{row.reference}` is {row.verdict} ({row.reason})"
        for row in found.images
    )
    return f"By the macro F1 of images, {told}."


def section(summary: StudySummary, found: Compared) -> Section:
    """The three-part verdict, the evidence, the rule."""
    title = "Is a hierarchy better?" if _against_flat(summary) else "The declared comparisons"
    if not found.images:
        return Section(
            title, [Text("Not estimable: this needs results of `flat` and of another variant, or `primary`.")]
        )
    rope = f"{100 * summary.rope:.1f}"
    blocks: list[Block] = [_verdicts(summary, found, rope)]
    for level, rows in found.levels:
        for row in rows:
            if row.probabilities is None:
                blocks.append(
                    Text(
                        f"{row.challenger} − {row.reference}, {level} level: {row.verdict}: {row.reason}.",
                        "note",
                    )
                )
    caption = f"Differences with their 95 % intervals; grey: equivalent (±{rope} points)."
    blocks += [
        Figure(
            "differences",
            caption,
            figures.forest(_bars(found), summary.rope, "difference in macro F1, percentage points"),
        ),
        _evidence(found),
        text(
            prose.VERDICT,
            rope=rope,
            certain=f"{stats.CERTAIN:g}",
            alpha=f"{stats.ALPHA:g}",
            ratio=f"{scores.ratio(summary):.3f}",
        ),
        text(prose.EVIDENCE, floor=metrics.FLOOR),
    ]
    if folds := max(row.folds for row in found.images):
        blocks.append(text(prose.FEW_FOLDS, "note", folds=plural(folds, "fold")))
    return Section(title, blocks)


def _against_flat(summary: StudySummary) -> bool:
    """Whether hierarchies are compared with flat arms, and nothing else is."""
    variants = {arm.name: arm.variant for arm in summary.arms}
    return all(
        variants.get(other, other) == "flat" != variants.get(mine, mine) for mine, other in summary.primary
    )


def _verdicts(summary: StudySummary, found: Compared, rope: str) -> Table:
    rows = []
    for level, comparisons in found.levels:
        for row in comparisons:
            parts = [math.nan] * 3 if row.probabilities is None else list(row.probabilities)
            name = f"{row.challenger} − {row.reference}"
            rows.append(
                [
                    name,
                    level,
                    row.verdict,
                    points(row.mean),
                    *(probability(part) for part in parts),
                    str(row.folds),
                ]
            )
    worse, better = (
        ("P(flat better)", "P(hierarchy better)") if _against_flat(summary) else ("P(worse)", "P(better)")
    )
    header = ["difference", "level", "verdict", "mean", worse, f"P(within ±{rope})", better, "folds"]
    caption = (
        "Macro F1 in percentage points, mean over folds; a positive difference favours the first of the two."
    )
    return Table(caption, header, rows, labels=3)


def _evidence(found: Compared) -> Table:
    rows = []
    for level, comparisons in found.levels:
        for row in comparisons:
            mcnemar = (
                "–"
                if row.mcnemar is None
                else f"{row.mcnemar.first_only} : {row.mcnemar.second_only}, p {p_value(row.mcnemar.p)}"
            )
            patients = "unknown" if row.alone == row.clusters else str(row.clusters - row.alone)
            patients += (
                f" and {plural(row.alone, 'image')} without one" if 0 < row.alone < row.clusters else ""
            )
            rows.append(
                [
                    f"{row.challenger} − {row.reference}",
                    level,
                    interval(row.interval),
                    p_value(row.p),
                    p_value(row.p_holm),
                    interval(_bootstrap(row)),
                    percent(row.detectable),
                    mcnemar,
                    patients,
                ]
            )
    header = [
        "difference",
        "level",
        "Nadeau-Bengio 95 %",
        "p",
        "Holm p",
        "bootstrap 95 %, by patient",
        "smallest detectable",
        "McNemar, patients",
        "patients",
    ]
    return Table("The evidence, in percentage points.", header, rows, labels=2)


def _bars(found: Compared) -> list[figures.Bar]:
    bars = []
    for level, rows in found.levels:
        for row in rows:
            name = f"{row.challenger} − {row.reference}"
            low, high = row.interval or (math.nan, math.nan)
            bars.append(figures.Bar(name, f"{level}, Nadeau-Bengio", row.mean, low, high))
            low, high = _bootstrap(row) or (math.nan, math.nan)
            bars.append(figures.Bar(name, f"{level}, bootstrap", math.nan, low, high))
    return bars


def _bootstrap(row: Comparison) -> tuple[float, float] | None:
    """None, too, where no image has a patient: then each would count as one."""
    return None if row.alone == row.clusters else row.bootstrap
