"""Render a study's report: a Markdown page with figures and tables as files beside it, and one HTML page that
needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leukotree.evaluation import decide
from leukotree.records.commands import Given
from leukotree.report import checklists, rendering, scores, spoken
from leukotree.report.blocks import Section, text
from leukotree.report.prose import lead as prose
from leukotree.report.rendering import MARKDOWN, Rendered
from leukotree.report.sections import (
    ablation,
    answer,
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
    return Rendered(extra | pages, spoken.lines(summary, of_card, sections))


def _about(summary: StudySummary) -> str:
    # With runs, the first section has this warning.
    unchecked = [] if summary.runs else overview.unchecked(summary)
    rule = decide.RULES[summary.decision].words
    ensemble = [text(prose.ENSEMBLE).text] if "ensemble" in summary.variants else []
    return " ".join([text(prose.ABOUT, rule=rule).text, *ensemble, *(warning.text for warning in unchecked)])


def _sections(summary: StudySummary, compared: comparison.Compared | None, images: bool) -> Sequence[Section]:
    """The sections with content, in their order within a place (see `contents`)."""
    tail = [
        settings.settings(summary),
        searches.section(summary),
        settings.runs(summary),
        settings.cost(summary),
    ]
    if compared is None:
        return [section for section in (answer.section(summary), *tail) if section and section.blocks]
    by_fold = scores.per_fold(scores.per_run(summary, scores.shown(summary)))
    everything = [
        overview.lead(summary, by_fold, comparison.headline(summary, compared)),
        comparison.section(summary, compared),
        planned.section(summary),
        answer.section(summary),
        trees.section(summary),
        ablation.section(summary),
        nodes.section(summary),
        learning_rate.section(summary),
        decisions.section(summary),
        patients.section(summary, by_fold),
        clinical.section(summary),
        readers.section(summary),
        shortcuts.section(summary),
        subgroups.section(summary),
        external.section(summary),
        tree.section(by_fold),
        calibration.section(summary),
        mixed.section(summary),
        explanations.section(summary),
        prediction_sets.section(summary),
        gallery.section(summary, images),
        interference.section(summary),
        tree.leaves(summary),
        overview.folds(summary, by_fold),
        tree.decisions(summary),
        flow.section(summary),
        overview.data(summary),
        budget.section(summary),
        *tail,
    ]
    return [section for section in everything if section and section.blocks]
