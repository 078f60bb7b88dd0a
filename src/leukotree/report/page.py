"""Render a study's report: a Markdown page with PNG files beside it, and one HTML page that needs no other
file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leukotree import files
from leukotree.evaluation import decide
from leukotree.records.commands import Given
from leukotree.report import checklists, prose, scores
from leukotree.report.blocks import Figure, Section, text
from leukotree.report.sections import (
    ablation,
    answer,
    budget,
    calibration,
    clinical,
    comparison,
    decisions,
    flow,
    interference,
    learning_rate,
    mixed,
    overview,
    patients,
    planned,
    prediction_sets,
    readers,
    reproduce,
    searches,
    settings,
    subgroups,
    tree,
    trees,
)
from leukotree.report.summary import StudySummary


def write(summary: StudySummary, out: Path, command: Given | None = None) -> tuple[Path, Path]:
    """Write `report.md`, `figures/*.png`, `report.html`, `checklists.md`, the study file and the files of the
    sections into the folder `out`.

    Args: command: the command that writes this report. None where no command does.

    Returns the paths of the two pages. Everything is rendered before the first file is written. Each file is
    replaced atomically. The same input files give the same bytes.
    """
    out = Path(out)
    reproduction = reproduce.reproduction(summary, out, command)
    sections = [*_sections(summary), reproduction.section]
    beside = {name: content for section in sections for name, content in section.files.items()}
    beside |= reproduction.files
    if summary.runs:
        beside[checklists.FILE] = checklists.render(summary, sections, "report.md").encode()
        sections.insert(-1, checklists.section(summary, sections))
    unchecked = (
        [] if summary.runs else overview.unchecked(summary)
    )  # with runs, the first section has this warning
    rule = decide.RULES[summary.decision].words
    ensemble = [text(prose.ENSEMBLE).text] if "ensemble" in summary.variants else []
    about = " ".join([text(prose.ABOUT, rule=rule).text, *ensemble, *(warning.text for warning in unchecked)])
    values = {"title": f"Study {summary.name}", "about": about, "sections": sections}
    environment = _environment()
    pages = {
        name: environment.get_template(f"page.{suffix}").render(values)
        for name, suffix in (("report.md", "md"), ("report.html", "html"))
    }
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                files.write_atomic(out / "figures" / f"{block.name}.png", block.png)
    for name, content in (beside | pages).items():
        files.write_atomic(out / name, content)
    return out / "report.md", out / "report.html"


def _sections(summary: StudySummary) -> Sequence[Section]:
    """The sections with content: the answers first, the long tables last."""
    tail = [
        settings.settings(summary),
        searches.section(summary),
        settings.runs(summary),
        settings.cost(summary),
    ]
    if not summary.runs:
        return [section for section in (answer.section(summary), *tail) if section and section.blocks]
    by_fold = scores.per_fold(scores.per_run(summary, scores.shown(summary)))
    compared = comparison.compared(summary)
    everything = [
        overview.lead(summary, by_fold, comparison.headline(summary, compared)),
        comparison.section(summary, compared),
        planned.section(summary),
        answer.section(summary),
        trees.section(summary),
        ablation.section(summary),
        learning_rate.section(summary),
        decisions.section(summary),
        patients.section(summary, by_fold),
        clinical.section(summary),
        readers.section(summary),
        subgroups.section(summary),
        tree.section(by_fold),
        calibration.section(summary),
        mixed.section(summary),
        prediction_sets.section(summary),
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


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("leukotree", "report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": _code,
        "cell": _cell,
        "base64": lambda png: base64.b64encode(png).decode(),
    }
    return environment


def _code(value: str) -> Any:
    """The HTML of a text: escaped, with `backticks` as <code>."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(value))))  # noqa: S704 - escaped just before


def _cell(value: str) -> str:
    """The Markdown of a text: it cannot end a table's cell, and it cannot become HTML."""
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())
