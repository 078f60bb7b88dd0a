"""The section about the planned power: the design that was planned, and whether the study as run has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leukotree.records import planned
from leukotree.report import scores
from leukotree.report.blocks import Block, Section, Table, Text, interval, percent, plural, points, text
from leukotree.report.prose import verdicts as prose
from leukotree.report.summary import StudySummary
from leukotree.stats.power import Design


def section(summary: StudySummary) -> Section | None:
    """A sentence with the planned design, and a table beside the study as run. None without a plan."""
    plan = summary.planned
    if plan is None:
        return None
    design = plan["planned"]
    effect = points(float(plan["effect"]))
    wanted = f"{percent(float(plan['wanted']))} %"
    blocks: list[Block] = []
    if plan[planned.FINISHED]:
        runs = plural(int(plan[planned.FINISHED]), "run")
        blocks.append(text(prose.PLANNED_LATE, "warning", runs=runs))
    if design is None:
        blocks.append(text(prose.NOT_POWERED, "warning", wanted=wanted, effect=effect))
        design = plan["study"]
    else:
        blocks.append(Text(f"Planned: {_power(design)} % power for {effect} points with {_named(design)}."))
    run = as_run(summary)
    blocks.append(_match(design, run, bool(summary.missing)))
    rows = [
        ["planned" if plan["planned"] else "the study file then", *_cells(design), _power(design)],
        ["as run", *map(str, run), "–"],
    ]
    caption = (
        f"The plan for {plan['challenger']} − {plan['reference']}. Power: to find {effect} points of macro "
        "F1, in per cent, with the 95 % interval of the simulation."
    )
    blocks.append(Table(caption, ["design", *planned.DESIGN, "power"], rows))
    blocks.append(text(prose.PLANNED, source=plan.get("source", "assumptions")))
    return Section("The planned power", blocks)


def as_run(summary: StudySummary) -> Design:
    """The design of the finished runs. Without patient ids, images count as patients."""
    runs = scores.one_per_fold(summary.runs)
    patients = {patient for run in runs for patient in run.images["patient"] if patient}
    alone = sum(int((run.images["patient"] == "").sum()) for run in runs)
    return Design(
        folds=len({run.test_fold for run in runs}),
        repeats=len({run.repeat for run in summary.runs}),
        seeds=len({run.seed for run in summary.runs}),
        patients=len(patients) + alone,
    )


def _match(design: Mapping[str, Any], run: Design, unfinished: bool) -> Text:
    """Whether the study as run has the planned numbers."""
    fewer = [
        f"{key} {getattr(run, key)} instead of {design[key]}"
        for key in planned.DESIGN
        if getattr(run, key) != design[key]
    ]
    if not fewer:
        return Text("The study as run has these numbers.")
    so_far = "so far " if unfinished else ""
    return Text(
        f"The study as run {so_far}differs from the plan: {', '.join(fewer)}. It does not have the planned "
        "power.",
        "note" if unfinished else "warning",
    )


def _cells(design: Mapping[str, Any]) -> list[str]:
    return [str(design[key]) for key in planned.DESIGN]


def _named(design: Mapping[str, Any]) -> str:
    return str(Design(*(int(design[key]) for key in planned.DESIGN)))


def _power(design: Mapping[str, Any]) -> str:
    value, low, high = design["power"]
    return f"{percent(value)} ({interval((low, high))})"
