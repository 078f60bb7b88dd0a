"""The card at the top of a report: what the study says in one sentence, how sure that is, and from which
data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from leukotree.records import origin, runfolder
from leukotree.report import evidence, figures, scores
from leukotree.report.blocks import Block, Figure, Table, Text, interval, plural, points, probability
from leukotree.report.sections import code, shortcuts
from leukotree.report.sections.comparison import Compared
from leukotree.report.summary import StudySummary
from leukotree.stats import Comparison

MOST = 4
"""Largest number of comparisons on the card. The others are in the section about them."""
MOST_BARS = 8
"""Largest number of comparisons in the figure."""
DECIDED = ("better", "worse", "equivalent")


@dataclass(frozen=True)
class Row:
    """One comparison of images."""

    name: str
    difference: str
    """In points, with its sign."""
    interval: str
    verdict: str
    sure: str
    """How sure that is, in a sentence."""


@dataclass(frozen=True)
class Card:
    headline: str
    rows: Sequence[Row]
    more: str
    """What the comparisons without a row came to. "" where all have one."""
    early: str
    """"Preliminary: ..." while runs of the comparisons are missing, else ""."""
    facts: Sequence[tuple[str, str]]
    """Names and values: patients, images, folds, last result, data, code."""
    figures: Sequence[Figure]
    word: str = "verdict"
    """What `Row.verdict` is."""
    caption: str = "The verdicts, in percentage points of the macro F1 of images (mean over folds)."

    @cached_property
    def table(self) -> Table:
        """The rows as a table, for the Markdown page and for files."""
        header = ["comparison", "difference", "95 %", self.word, "how sure"]
        rows = [[row.name, row.difference, row.interval, row.verdict, row.sure] for row in self.rows]
        return Table(self.caption, header, rows, labels=len(header), file="verdict")

    @property
    def blocks(self) -> list[Block]:
        """What the Markdown page shows of the card."""
        facts = Text(". ".join(f"{name}: {value}" for name, value in self.facts) + ".")
        early: list[Block] = [Text(self.early, "warning")] if self.early else []
        return [*early, *([self.table] if self.rows else []), facts, *self.figures]


def card(summary: StudySummary, compared: Compared) -> Card:
    """The card of a study with runs."""
    rows = sorted(compared.images, key=lambda row: row.verdict not in DECIDED)
    shown, rest = rows[:MOST], rows[MOST:]
    counts = [f"{sum(row.verdict == verdict for row in rest)} {verdict}" for verdict in _verdicts(rest)]
    return Card(
        headline=_headline(rows, summary),
        rows=[_row(row, summary) for row in shown],
        more=f"{plural(len(rest), 'more comparison')}: {', '.join(counts)}." if rest else "",
        early=_early(summary),
        facts=_facts(summary),
        figures=_figures(summary, compared),
    )


def _verdicts(rows: Sequence[Comparison]) -> list[str]:
    return list(dict.fromkeys(row.verdict for row in rows))


def _headline(rows: Sequence[Comparison], summary: StudySummary) -> str:
    """The answer in a sentence: the first decided comparison, or that none is decided."""
    if not rows:
        return "No comparison is declared, so there is no verdict."
    first, others = rows[0], len(rows) - 1
    names = f"`{first.challenger}`", f"`{first.reference}`"
    by = f"by {abs(100 * first.mean):.1f} points of macro F1 (95 % {interval(first.interval)})"
    if first.verdict == "better":
        return f"{names[0]} is better than {names[1]} {by}."
    if first.verdict == "worse":
        return f"{names[0]} is worse than {names[1]} {by}."
    if first.verdict == "equivalent":
        rope = f"±{100 * summary.rope:.1f} points of macro F1"
        return f"{names[0]} and {names[1]} are equivalent: they differ by less than {rope}."
    if all(row.verdict == "not estimable" for row in rows):
        return f"No verdict yet: {first.reason}."
    difference = f"{points(first.mean)} points of macro F1 (95 % {interval(first.interval)})"
    if not others:
        return f"No difference between {names[0]} and {names[1]} is shown: {difference}."
    return "No declared difference is shown: every verdict is inconclusive."


def _row(row: Comparison, summary: StudySummary) -> Row:
    said = []
    if row.probabilities is not None:
        worse, same, better = map(probability, row.probabilities)
        within = f"P(within ±{100 * summary.rope:.1f})"
        said.append(f"P(better) {better}, {within} {same}, P(worse) {worse}.")
    if not math.isnan(row.detectable):
        said.append(f"Smallest detectable difference: {evidence.detectable(row)} points.")
    sure = " ".join(said) or f"{row.reason}."
    return Row(
        f"{row.challenger} − {row.reference}", points(row.mean), interval(row.interval), row.verdict, sure
    )


def _early(summary: StudySummary) -> str:
    names = {name for pair in summary.primary for name in pair}
    missing = sum(run.arm in names for run in summary.missing)
    total = missing + sum(run.arm in names for run in summary.runs)
    return f"Preliminary: {total - missing} of {total} runs have a result." if missing else ""


def _facts(summary: StudySummary) -> list[tuple[str, str]]:
    folds = scores.one_per_fold(summary.runs)
    images = sum(len(run.true) for run in folds)
    patients = {patient for run in folds for patient in run.images["patient"] if patient}
    seeds = len({run.seed for run in summary.runs})
    design = f"{plural(len(folds), 'fold')}, {plural(seeds, 'seed')}"
    repeats = f", {summary.repeats} repeats" if summary.repeats > 1 else ""
    facts: list[tuple[str, str]] = [
        ("Patients", f"{len(patients):,}" if patients else "unknown"),
        ("Images", f"{images:,}"),
        ("Tested in", f"{design}{repeats}"),
    ]
    if date := _date(summary):
        facts.append(("Last result", date))
    if of_data := _data(summary):
        facts.append(("Data", of_data))
    codes = sorted({name for run in summary.runs for name in code.of_run(run)})
    if codes:
        more = f" and {len(codes) - 2} more" if len(codes) > 2 else ""
        facts.append(("Code", ", ".join(f"`{name}`" for name in codes[:2]) + more))
    return facts


def _data(summary: StudySummary) -> str:
    """The sources of the images, and the first digits of the fingerprints of the data."""
    folds = scores.one_per_fold(summary.runs)
    sources = sorted({source for run in folds for source in run.images["source"] if source})
    named = ", ".join(sources[:MOST]) + (f" and {len(sources) - MOST} more" if len(sources) > MOST else "")
    digits = [f"`{fingerprint[: origin.DIGITS]}`" for fingerprint in scores.fingerprints(summary.runs)]
    return " ".join(part for part in (named, *digits) if part)


def _date(summary: StudySummary) -> str:
    """The day of the last result, "" where the runs did not note it."""
    beats = [runfolder.read_status(run.folder).get("heartbeat") for run in summary.runs]
    known = [beat for beat in beats if isinstance(beat, int | float) and math.isfinite(beat)]
    return datetime.fromtimestamp(max(known), UTC).date().isoformat() if known else ""


def _figures(summary: StudySummary, compared: Compared) -> list[Figure]:
    """The differences with their intervals, and the scores of the arms beside those of shortcuts."""
    drawn = []
    bars = [
        figures.Bar(
            f"{row.challenger} − {row.reference}", level, row.mean, *(row.interval or (math.nan,) * 2)
        )
        for level, rows in compared.levels
        for row in rows[:MOST_BARS]
        if not math.isnan(row.mean)
    ]
    if bars:
        caption = (
            "Differences in macro F1, mean over folds, with 95 % intervals of Nadeau and Bengio. Grey: the "
            f"region of practical equivalence (±{100 * summary.rope:.1f} points)."
        )
        label = "difference in macro F1, points"
        drawn.append(Figure("verdict", caption, figures.forest(bars, summary.rope, label, width=4.6)))
    folds = {
        arm.name: [scores.macro_f1(runs) for runs in scores.by_fold(arm.runs).values()]
        for arm in scores.shown(summary)
    }
    caption = (
        "Macro F1 of the arms, and of answers that need no morphology. Small points: outer folds. Line: "
        "their mean."
    )
    drawn.append(Figure("scores", caption, figures.reach(folds, shortcuts.reached(summary))))
    return drawn
