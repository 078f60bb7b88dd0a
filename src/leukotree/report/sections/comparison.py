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
from leukotree.spec import OF_LEAVES
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
    def levels(self) -> list[tuple[str, Sequence[Comparison]]]:
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
    values = [metrics.macro_f1(run.true, run.predicted, len(run.taxonomy.leaves)) for run in runs]
    return Fold(sum(values) / len(values), scores.image_clusters(runs))


def _of_groups(summary: StudySummary, leaves: np.ndarray, runs: Sequence[Run]) -> Fold:
    """The score of a fold by groups, over these leaves. The runs are those of one arm and fold, one per
    seed."""
    values = []
    for run in runs:
        groups = scores.groups(run, "mode", summary.decision)
        values.append(metrics.macro_f1(groups.true, groups.predicted, len(run.taxonomy.leaves), leaves))
    return Fold(sum(values) / len(values), scores.group_clusters(runs, summary.decision))


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
        f"Differences with their 95 % intervals. Grey: the region of practical equivalence (±{rope} points)."
    )
    label = "difference in macro F1, percentage points"
    return Section(
        title,
        [
            _verdicts(summary, compared, rope),
            *_not_estimable(compared),
            Figure("differences", caption, figures.forest(_bars(compared), summary.rope, label)),
            _evidence(compared),
            *_explanations(summary, compared, rope),
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
    blocks: list[Block] = [verdict, text(prose.EVIDENCE, floor=metrics.FLOOR)]
    if folds := max(row.folds for row in compared.images):
        blocks.append(text(prose.FEW_FOLDS, "note", folds=plural(folds, "fold")))
    return blocks


def _against_flat(summary: StudySummary) -> bool:
    """Whether every comparison is of a hierarchical arm with a flat arm."""
    variants = {arm.name: arm.variant for arm in summary.arms}
    return all(
        variants.get(reference, reference) in OF_LEAVES
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
    header = ["difference", "level", "verdict", "mean", worse, f"P(within ±{rope})", better, "folds"]
    caption = (
        "Macro F1 in percentage points, mean over folds. A positive difference favours the first of the two "
        "arms."
    )
    return Table(caption, header, rows, labels=3)


def _evidence(compared: Compared) -> Table:
    rows = []
    for level, comparisons in compared.levels:
        for row in comparisons:
            cells = [
                interval(row.interval),
                p_value(row.p),
                p_value(row.p_holm),
                interval(_bootstrap(row)),
                percent(row.detectable),
                _mcnemar(row),
                _patients(row),
            ]
            rows.append([f"{row.challenger} − {row.reference}", level, *cells])
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


def _mcnemar(row: Comparison) -> str:
    if row.mcnemar is None:
        return "–"
    return f"{row.mcnemar.first_only} : {row.mcnemar.second_only}, p {p_value(row.mcnemar.p)}"


def _patients(row: Comparison) -> str:
    """The number of patients, and of the images without a patient id."""
    if row.alone == row.clusters:
        return "unknown"
    images = f" and {plural(row.alone, 'image')} without one" if row.alone else ""
    return f"{row.clusters - row.alone}{images}"


def _bars(compared: Compared) -> list[figures.Bar]:
    bars = []
    for level, rows in compared.levels:
        for row in rows:
            name = f"{row.challenger} − {row.reference}"
            low, high = row.interval or (math.nan, math.nan)
            bars.append(figures.Bar(name, f"{level}, Nadeau-Bengio", row.mean, low, high))
            low, high = _bootstrap(row) or (math.nan, math.nan)
            bars.append(figures.Bar(name, f"{level}, bootstrap", math.nan, low, high))
    return bars


def _bootstrap(row: Comparison) -> tuple[float, float] | None:
    """The bootstrap interval. None where no image has a patient id, because each image would count as a
    patient."""
    return None if row.alone == row.clusters else row.bootstrap
