"""Render a study's report: Markdown with PNG files beside it, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leukotree import files
from leukotree.evaluation import decide
from leukotree.records.commands import Given
from leukotree.report import prose, scores
from leukotree.report.blocks import Figure, Section, text
from leukotree.report.sections import (
    ablation,
    answer,
    calibration,
    comparison,
    decisions,
    interference,
    overview,
    patients,
    reproduce,
    searches,
    settings,
    tree,
)
from leukotree.report.summary import StudySummary


def write(summary: StudySummary, out: Path, command: Given | None = None) -> tuple[Path, Path]:
    """Write `report.md`, `figures/*.png`, `report.html` and the study's file into a folder; returns the paths
    of the two pages.

    `command`: that which writes this report, where one does.
    Everything is rendered before anything is written, and each file is replaced atomically. Same files in,
    same bytes out.
    """
    out = Path(out)
    again = reproduce.reproduction(summary, out, command)
    sections = [*_sections(summary), again.section]
    unchecked = [] if summary.runs else overview.unchecked(summary)  # with runs the lead says it
    about = text(
        " ".join([prose.ABOUT, *(note.text for note in unchecked)]), rule=decide.RULES[summary.decision].words
    )
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
    for name, page in (again.files | pages).items():
        files.write_atomic(out / name, page)
    return out / "report.md", out / "report.html"


def _sections(summary: StudySummary) -> Sequence[Section]:
    """The answers first, the long tables last."""
    tail = [
        settings.settings(summary),
        searches.section(summary),
        settings.runs(summary),
        settings.cost(summary),
    ]
    if not summary.runs:
        return [section for section in (answer.section(summary), *tail) if section and section.blocks]
    by_fold = scores.per_fold(scores.per_run(summary, scores.shown(summary)))
    found = comparison.compared(summary)
    everything = [
        overview.lead(summary, by_fold, comparison.headline(summary, found)),
        comparison.section(summary, found),
        answer.section(summary),
        ablation.section(summary),
        ablation.sensitivity(summary),
        decisions.section(summary),
        patients.section(summary, by_fold),
        tree.section(by_fold),
        calibration.section(summary),
        decisions.mixed(summary),
        interference.section(summary),
        tree.leaves(summary),
        overview.folds(summary, by_fold),
        tree.nodes_section(summary),
        overview.data(summary),
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
    """HTML of a text: escaped, with `backticks` as <code>."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(value))))  # noqa: S704 - escaped just before


def _cell(value: str) -> str:
    """A text that cannot break out of a Markdown table's cell or become HTML."""
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())
