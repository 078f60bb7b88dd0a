"""What `leukotree report` prints: the report in five lines."""

from __future__ import annotations

from collections.abc import Sequence

from leukotree.report import scores
from leukotree.report.blocks import Section, Text, mean_sd, percent, plural
from leukotree.report.sections import shortcuts
from leukotree.report.sections.card import Card
from leukotree.report.summary import Arm, StudySummary

MOST_LETTERS = 110
"""A longer line ends in an ellipsis."""


def lines(summary: StudySummary, card: Card | None, sections: Sequence[Section]) -> list[str]:
    """Study and data, the answer, the scores of the arms, the comparisons, the warnings; at most five."""
    if card is None:
        searched = [variant for variant, of_folds in summary.searches.items() if of_folds]
        said = [f"Study {summary.name}: no run of an outer fold has a result yet"]
        said += [f"Searches: {', '.join(searched)}"] if searched else []
    else:
        facts = ", ".join(f"{name.lower()} {value}" for name, value in card.facts[:3])
        said = [f"Study {summary.name}: {facts}", card.early or card.headline, _scores(summary)]
        compared = "; ".join(
            f"{row.name} {row.difference} ({row.interval}), {row.verdict}" for row in card.rows
        )
        said += [f"Differences: {compared}"] if compared else []
    warnings = sum(
        isinstance(block, Text) and block.tone == "warning" for section in sections for block in section.flat
    )
    said.append(f"{plural(warnings, 'warning')} in the report" if warnings else "No warnings")
    return [_short(line.replace("`", "")) for line in said]


def table(summary: StudySummary, card: Card | None) -> list[str]:
    """What stands below these lines where somebody reads them for the first time: the arms beside answers
    without morphology, and what the verdicts mean. [] without runs."""
    if card is None or summary.taxonomy is None:
        return []
    leaves = len(summary.taxonomy.leaves)
    rows = [(arm.name, _of_folds(arm)) for arm in scores.shown(summary)]
    rows += [(name, percent(value)) for name, value in shortcuts.reached(summary).items()]
    rows += [(f"a random guess, 1 of {leaves}", percent(scores.guessed(summary.runs)))]
    width = max(len(name) for name, _ in rows)
    made = [f"{'':{width}}  macro F1, %", *(f"{name:{width}}  {value}" for name, value in rows)]
    verdicts = [row.verdict for row in card.rows]
    if verdicts and all(verdict == "inconclusive" for verdict in verdicts):
        made += [
            "",
            "Inconclusive: these images do not tell the arms apart. That does not say that they are equal.",
        ]
        made += [f"{row.name}: {row.sure}" for row in card.rows]
    return [line.replace("`", "") for line in made]


def _of_folds(arm: Arm) -> str:
    return mean_sd([scores.macro_f1(runs) for runs in scores.by_fold(arm.runs).values()])


def _scores(summary: StudySummary) -> str:
    of_arms = [f"{arm.name} {_of_folds(arm)}" for arm in scores.shown(summary)]
    return f"Macro F1, %: {', '.join(of_arms)}"


def _short(line: str) -> str:
    """A line for a terminal, without control characters."""
    plain = "".join(letter if letter.isprintable() else " " for letter in line)
    return plain if len(plain) <= MOST_LETTERS else plain[: MOST_LETTERS - 1] + "…"
