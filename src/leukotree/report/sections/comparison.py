"""The section about the declared comparisons: verdicts for images and for patients, with the evidence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from leukotree import stats
from leukotree.evaluation import metrics
from leukotree.report import evidence, figures, own_rules, scores
from leukotree.report.blocks import (
    Block,
    Figure,
    Folded,
    Section,
    Table,
    Text,
    plural,
    points,
    probability,
    text,
)
from leukotree.report.prose import verdicts as prose
from leukotree.report.summary import Run, StudySummary
from leukotree.spec import OF_LEAVES, PLAIN
from leukotree.stats import Comparison, Fold

MOST_NAMED = 4
"""With more comparisons, the first lines of the report give counts of the verdicts."""


@dataclass(frozen=True)
class Compared:
    """The declared comparisons at image level and at patient level."""

    images: Sequence[Comparison]
    patients: Sequence[Comparison]
    """Empty where the images have no patient ids."""
    unit: str | None
    """The unit of the patient level, see `scores.unit`."""

    @property
    def levels(self) -> evidence.Levels:
        """The levels with their comparisons."""
        return [("image", self.images), *([(self.unit, self.patients)] if self.unit else [])]


def compare(summary: StudySummary) -> list[Comparison]:
    """The declared comparisons by the macro F1 of images: the primary family."""
    return _compare(summary, _of_images)


def compared(summary: StudySummary) -> Compared:
    """The declared comparisons at both levels. The comparisons of each level are a family."""
    unit = scores.unit(summary.runs)
    leaves = scores.leaves_of_patients(summary.runs)
    patients = (
        _compare(summary, partial(_of_groups, summary, leaves), partial(_macro_f1, leaves)) if unit else []
    )
    return Compared(compare(summary), patients, unit)


def of_arm(runs: Sequence[Run]) -> dict[int, Fold]:
    """Test fold -> macro F1 and confusions of the images. The runs are those of one arm."""
    return {fold: _of_images(seeds) for fold, seeds in scores.by_fold(runs).items()}


def _compare(
    summary: StudySummary,
    fold_of: Callable[[Sequence[Run]], Fold],
    statistic: stats.Statistic = stats.macro_f1,
) -> list[Comparison]:
    """The declared comparisons. `fold_of` makes the score of a fold from its runs."""
    compared = {name for pair in summary.primary for name in pair}
    # A fold without patient ids has no score by patient.
    arms = {
        arm.name: {
            number: fold
            for number, runs in scores.by_fold(arm.runs).items()
            if not math.isnan((fold := fold_of(runs)).score)
        }
        for arm in summary.arms
        if arm.name in compared
    }
    return stats.compare(arms, summary.primary, scores.ratio(summary), summary.rope, statistic)


def _macro_f1(leaves: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    return stats.f1(confusion)[..., leaves].mean(axis=-1)


def _of_images(runs: Sequence[Run]) -> Fold:
    """The score of a fold by images. The runs are those of one arm and fold, one per seed."""
    return Fold(scores.macro_f1(runs), scores.image_clusters(runs), runs[0].repeat)


def _of_images_by_own_rule(runs: Sequence[Run]) -> Fold:
    return _of_images([own_rules.decided(run) for run in runs])


def _of_groups(summary: StudySummary, leaves: np.ndarray, runs: Sequence[Run]) -> Fold:
    """The score of a fold by groups, over these leaves. The runs are those of one arm and fold, one per
    seed."""
    values = []
    for run in runs:
        groups = scores.groups(run, "mode", summary.decision)
        values.append(metrics.macro_f1(groups.true, groups.predicted, len(run.taxonomy.leaves), leaves))
    return Fold(sum(values) / len(values), scores.group_clusters(runs, summary.decision), runs[0].repeat)


def headline(summary: StudySummary, compared: Compared) -> Block:
    """The verdicts in one paragraph. They are called preliminary while runs of the declared comparisons are
    missing."""
    names = {name for pair in summary.primary for name in pair}
    missing = sum(run.arm in names for run in summary.missing)
    total = missing + sum(run.arm in names for run in summary.runs)
    early = f"Preliminary, {total - missing} of {total} runs: " if missing and compared.images else ""
    verdict = _headline(compared)
    return Text(f"{early}{verdict[:1].lower()}{verdict[1:]}" if early else verdict)


def _headline(compared: Compared) -> str:
    if not compared.images:
        return (
            "No verdict: the study declares no comparison (`primary`), and it has no `flat` arm to compare "
            "with."
        )
    if len(compared.images) <= MOST_NAMED:
        verdicts = [f"{_verdict(row)} ({row.reason})" for row in compared.images]
        return f"By the macro F1 of images, {'; '.join(verdicts)}."
    counts = Counter(row.verdict for row in compared.images)
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    decided = [row for row in compared.images if row.verdict in ("better", "worse", "equivalent")]
    named = "; ".join(map(_verdict, decided[:MOST_NAMED]))
    return (
        f"Of {len(compared.images)} declared comparisons by the macro F1 of images: {listed}."
        f"{f' {named}.' if named else ''}"
    )


def _verdict(row: Comparison) -> str:
    return f"`{row.challenger}` against `{row.reference}` is {row.verdict}"


def section(summary: StudySummary, compared: Compared) -> Section:
    """The table of verdicts with three probabilities each, the evidence, and the rule."""
    title = "Is a hierarchy better?" if _against_flat(summary) else "The declared comparisons"
    if not compared.images:
        missing = "Not estimable: this needs results of `flat` and of another variant, or `primary`."
        return Section(title, [Text(missing)])
    rope = f"{100 * summary.rope:.1f}"
    caption = (
        "Differences, each with its own 95 % interval: the mean over folds by Nadeau and Bengio, the pooled "
        f"difference by the bootstrap. Grey: the region of practical equivalence (±{rope} points)."
    )
    label = "difference in macro F1, percentage points"
    bars = evidence.bars(compared.levels)
    return Section(
        title,
        [
            _verdicts(summary, compared, rope),
            *_not_estimable(compared),
            *_few_folds(compared),
            Folded(
                "The evidence: both estimates of each difference, each with its own interval.",
                [
                    Figure("differences", caption, figures.forest(bars, summary.rope, label)),
                    evidence.trained_again(compared.levels),
                    evidence.other_patients(compared.levels),
                ],
            ),
            Folded("How a verdict is made.", _explanations(summary, compared, rope)),
            *_by_own_rules(summary),
        ],
    )


def _not_estimable(compared: Compared) -> list[Block]:
    """A note with the reason for each comparison without probabilities."""
    return [
        Text(f"{row.challenger} − {row.reference}, {level} level: {row.verdict}: {row.reason}.", "note")
        for level, rows in compared.levels
        for row in rows
        if row.probabilities is None
    ]


def _explanations(summary: StudySummary, compared: Compared, rope: str) -> list[Block]:
    verdict = text(
        prose.VERDICT,
        rope=rope,
        certain=f"{stats.CERTAIN:g}",
        alpha=f"{stats.ALPHA:g}",
        ratio=f"{scores.ratio(summary):.3f}",
    )
    folds, factors = max(row.folds for row in compared.images), ""
    if (of_spread := max(row.of_spread for row in compared.images)) > 0:
        low, high = stats.spread_factors(of_spread)
        factors = f", with {folds} folds {low:.1f} to {high:.1f} times the estimate"
    blocks: list[Block] = [verdict, text(prose.EVIDENCE, floor=metrics.FLOOR, factors=factors)]
    if summary.repeats > 1:
        blocks.append(text(prose.REPEATS, repeats=summary.repeats))
    return blocks


def _few_folds(compared: Compared) -> list[Block]:
    folds = max(row.folds for row in compared.images)
    return [text(prose.FEW_FOLDS, "note", folds=plural(folds, "fold"))] if folds else []


def _by_own_rules(summary: StudySummary) -> list[Block]:
    blocks = own_rules.blocks(summary, _compare(summary, _of_images_by_own_rule))
    return [Folded("Secondary: each method by its own decision rule.", blocks)] if blocks else []


def _against_flat(summary: StudySummary) -> bool:
    """Whether every comparison is of a hierarchical arm with a flat arm."""
    variants = {arm.name: arm.variant for arm in summary.arms}
    return all(
        variants.get(reference, reference) in OF_LEAVES
        and variants.get(reference, reference) not in PLAIN
        and variants.get(challenger, challenger) not in OF_LEAVES
        for challenger, reference in summary.primary
    )


def _verdicts(summary: StudySummary, compared: Compared, rope: str) -> Table:
    rows = []
    for level, comparisons in compared.levels:
        for row in comparisons:
            probabilities = [math.nan] * 3 if row.probabilities is None else list(row.probabilities)
            cells = [row.verdict, points(row.mean), *map(probability, probabilities), str(row.folds)]
            rows.append([f"{row.challenger} − {row.reference}", level, *cells])
    worse, better = "P(worse)", "P(better)"
    if _against_flat(summary):
        worse, better = "P(flat better)", "P(hierarchy better)"
    header = [
        "difference",
        "level",
        "verdict",
        "mean over folds",
        worse,
        f"P(within ±{rope})",
        better,
        "folds",
    ]
    caption = (
        "Macro F1 in percentage points, mean over folds. A positive difference favours the first of the two "
        "arms."
    )
    return Table(caption, header, rows, labels=3, file="verdicts")
