"""Render a study's report: a Markdown page with figures and tables as files beside it, and one HTML page that
needs no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from leukotree import progress
from leukotree.evaluation import decide
from leukotree.records.commands import Given
from leukotree.report import checklists, rendering, scores, spoken
from leukotree.report.blocks import Section, text
from leukotree.report.prose import lead as prose
from leukotree.report.rendering import MARKDOWN, Rendered
from leukotree.report.sections import (
    ablation,
    answer,
    backbones,
    budget,
    calibration,
    card,
    clinical,
    comparison,
    decisions,
    explanations,
    external,
    flow,
    gallery,
    interference,
    learning_rate,
    mixed,
    nodes,
    overview,
    patients,
    planned,
    prediction_sets,
    readers,
    reproduce,
    searches,
    settings,
    shortcuts,
    subgroups,
    tree,
    trees,
)
from leukotree.report.summary import StudySummary


def write(summary: StudySummary, out: Path, command: Given | None = None) -> tuple[Path, Path]:
    """Render a report and write it into the folder `out`; returns the paths of the two pages."""
    return render(summary, out, command).write(out)


def render(summary: StudySummary, out: Path, command: Given | None = None, images: bool = False) -> Rendered:
    """`report.md`, `report.html`, `figures/` (SVG and PNG), `tables/` (CSV and LaTeX), `checklists.md`, the
    study file and the files of the sections. The same input files give the same bytes.

    Args:
        out: the folder that the report will be in. Links begin there.
        command: the command that writes this report. None where no command does.
        images: whether the page may show images of the data set. Those of phantoms are always shown.
    """
    out = Path(out)
    reproduction = reproduce.reproduction(summary, out, command)
    compared = comparison.compared(summary) if summary.runs else None
    sections = [*_sections(summary, compared, images), reproduction.section]
    extra: dict[str, str | bytes] = {
        name: file for section in sections for name, file in section.files.items()
    }
    extra |= reproduction.files
    if summary.runs:
        extra[checklists.FILE] = checklists.render(summary, sections, MARKDOWN)
        sections.insert(-1, checklists.section(summary, sections))
    of_card = card.card(summary, compared) if compared else None
    pages = rendering.pages(f"Study {summary.name}", _about(summary), of_card, sections, out)
    said = spoken.lines(summary, of_card, sections)
    return Rendered(extra | pages, said, spoken.table(summary, of_card))


def _about(summary: StudySummary) -> str:
    # With runs, the first section has this warning.
    unchecked = [] if summary.runs else overview.unchecked(summary)
    rule = decide.RULES[summary.decision].words
    ensemble = [text(prose.ENSEMBLE).text] if "ensemble" in summary.variants else []
    plain = [text(words).text for variant, words in prose.PLAIN.items() if variant in summary.variants]
    warnings = [warning.text for warning in unchecked]
    return " ".join([text(prose.ABOUT, rule=rule).text, *ensemble, *plain, *warnings])


def _sections(summary: StudySummary, compared: comparison.Compared | None, images: bool) -> Sequence[Section]:
    """The sections with content, in their order within a place (see `contents`)."""
    tail: list[Callable[[], Section | None]] = [
        partial(settings.settings, summary),
        partial(backbones.section, summary),
        partial(searches.section, summary),
        partial(settings.runs, summary),
        partial(settings.cost, summary),
    ]
    if compared is None:
        first = [answer.section(summary), *(one() for one in tail)]
        return [section for section in first if section and section.blocks]
    by_fold = scores.per_fold(scores.per_run(summary, scores.shown(summary)))
    everything: list[Callable[[], Section | None]] = [
        partial(overview.lead, summary, by_fold, comparison.headline(summary, compared)),
        partial(comparison.section, summary, compared),
        partial(planned.section, summary),
        partial(answer.section, summary),
        partial(trees.section, summary),
        partial(ablation.section, summary),
        partial(nodes.section, summary),
        partial(learning_rate.section, summary),
        partial(decisions.section, summary),
        partial(patients.section, summary, by_fold),
        partial(clinical.section, summary),
        partial(readers.section, summary),
        partial(shortcuts.section, summary),
        partial(subgroups.section, summary),
        partial(external.section, summary),
        partial(tree.section, by_fold),
        partial(calibration.section, summary),
        partial(mixed.section, summary),
        partial(explanations.section, summary),
        partial(prediction_sets.section, summary),
        partial(gallery.section, summary, images),
        partial(interference.section, summary),
        partial(tree.leaves, summary),
        partial(overview.folds, summary, by_fold),
        partial(tree.decisions, summary),
        partial(flow.section, summary),
        partial(overview.data, summary),
        partial(budget.section, summary),
        *tail,
    ]
    # Each in turn, behind a bar: with thousands of runs a section takes minutes.
    made = []
    with progress.Bar("compute", len(everything), "section", soon=True) as bar:
        for one in everything:
            made.append(one())
            bar.advance()
    return [section for section in made if section and section.blocks]
