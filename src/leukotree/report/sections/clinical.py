"""The section about clinical use: each leaf against the rest, agreement, costs, calibration and net
benefit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap

import numpy as np

from leukotree.evaluation import clinical as measures
from leukotree.evaluation import metrics
from leukotree.evaluation.clinical import Target
from leukotree.report import clinical, figures, scores
from leukotree.report.blocks import Block, Figure, Section, Table, decimal, percent, share, text
from leukotree.report.clinical import Cases, Clinical
from leukotree.report.prose import probabilities as prose
from leukotree.report.summary import StudySummary

GRID = np.linspace(0.01, 0.99, 99)
"""Threshold probabilities of the curves of net benefit."""
Scored = dict[tuple[str, str], tuple[list[Cases], Clinical]]
"""(arm, "image", "patient" or "patient x leaf") -> its cases and their scores."""


def section(summary: StudySummary) -> Section:
    """Tables of rates, operating points, agreement, calibration and net benefit, and the curves of net
    benefit."""
    taxonomy = scores.shown(summary)[0].runs[0].taxonomy
    targets = measures.targets(taxonomy)
    scored = _scored(summary, targets)
    unit = scores.unit(summary.runs) or "image"
    blocks: list[Block] = [
        _rates(scored),
        *_operating(summary, scored),
        _overall(scored),
        *_costs(summary),
        _calibration(scored),
        _curves({arm: cases for (arm, of), (cases, _) in scored.items() if of == unit}, targets, unit),
        _benefit(scored, unit),
        text(prose.CLINICAL, floor=metrics.FLOOR),
    ]
    return Section("Clinical scores", blocks)


def _scored(summary: StudySummary, targets: Sequence[Target]) -> Scored:
    scored: Scored = {}
    unit = scores.unit(summary.runs)
    for arm in scores.shown(summary):
        for of in ("image", unit) if unit else ("image",):
            folds = clinical.cases(summary, arm, targets, of_patients=of != "image")
            of_arm = clinical.scored(folds, targets, arm.runs[0].taxonomy, fit=of == "image")
            scored[arm.name, of] = folds, of_arm
    return scored


def _rates(scored: Scored) -> Table:
    rows = []
    for (arm, of), (_, of_arm) in scored.items():
        for target, rates, patients in zip(of_arm.targets, of_arm.rates, of_arm.patients[:, 0], strict=True):
            rows.append([arm, of, target.name, *starmap(share, rates), str(patients or "unknown")])
        named = f"mean of {len(of_arm.averaged)} leaves"
        rows.append([arm, of, named, *starmap(share, of_arm.macro), "–"])
    header = ["variant", "unit", "target", "sensitivity", "specificity", "PPV", "NPV", "patients"]
    caption = (
        "Each target against the rest, by the decided leaf. In per cent, with 95 % intervals by patient."
    )
    return Table(caption, header, rows, labels=3)


def _operating(summary: StudySummary, scored: Scored) -> list[Block]:
    """Sensitivities at the thresholds of inner validation, or why there are none."""
    wanted = percent(summary.operating.specificity)
    judged = {
        key: [of for of in cases if not np.isnan(of.thresholds).all()] for key, (cases, _) in scored.items()
    }
    rows = [
        [
            arm,
            of,
            target.name,
            *starmap(share, scores),
            f"{len(judged[arm, of])} of {len(cases)}",
        ]
        for (arm, of), (cases, of_arm) in scored.items()
        if judged[arm, of]
        for target, scores in zip(of_arm.targets, of_arm.operating, strict=True)
    ]
    blocks: list[Block] = []
    if rows:
        header = ["variant", "unit", "target", "specificity reached", "sensitivity", "folds"]
        caption = f"At the thresholds that give a specificity of {wanted} % in inner validation. In per cent."
        blocks.append(Table(caption, header, rows, labels=3))
    if without := list(dict.fromkeys(arm for (arm, of), folds in judged.items() if not folds)):
        blocks.append(text(prose.NO_THRESHOLDS, "note", wanted=wanted, variants=", ".join(without)))
    return blocks


def _overall(scored: Scored) -> Table:
    rows = [
        [arm, of, *starmap(decimal, of_arm.overall), str(of_arm.cases)]
        for (arm, of), (_, of_arm) in scored.items()
    ]
    header = ["variant", "unit", "MCC", "weighted kappa", "mean cost", "cases"]
    return Table("Agreement of decided and true leaves, and the cost of mistakes.", header, rows, labels=2)


def _costs(summary: StudySummary) -> list[Block]:
    """The costs that the study gives, as the whole table."""
    taxonomy = summary.runs[0].taxonomy
    if taxonomy.given_costs is None:
        return [text(prose.COSTS_BY_HEIGHT)]
    rows = [
        [leaf, *(f"{cost:g}" for cost in row)]
        for leaf, row in zip(taxonomy.leaves, taxonomy.costs, strict=True)
    ]
    return [
        Table(
            "The study's costs: rows are true leaves, columns predicted ones.", ["", *taxonomy.leaves], rows
        )
    ]


def _calibration(scored: Scored) -> Table:
    rows = [
        [arm, target.name, *starmap(decimal, fitted)]
        for (arm, of), (_, of_arm) in scored.items()
        if of == "image"
        for target, fitted in zip(of_arm.targets, of_arm.recalibration, strict=True)
    ]
    caption = "Calibration of the raw probabilities of images: right are slope 1 and intercept 0."
    return Table(caption, ["variant", "target", "slope", "intercept"], rows, labels=2)


def _curves(cases: dict[str, list[Cases]], targets: Sequence[Target], unit: str) -> Figure:
    """A panel per target: the net benefit of each arm, and of calling all cases positive."""
    curves = {
        target.name: {
            **{
                arm: clinical.benefit_curve(folds, place, target.leaves, GRID) for arm, folds in cases.items()
            },
            figures.ALL_POSITIVE: clinical.all_positive(next(iter(cases.values())), target.leaves, GRID),
        }
        for place, target in enumerate(targets)
    }
    caption = f"Net benefit of acting on P(target), per {unit}. Acting on no case has the net benefit 0."
    return Figure("net_benefit", caption, figures.net_benefit(GRID, curves))


def _benefit(scored: Scored, unit: str) -> Table:
    at, grid = [f"at {100 * p:g} %" for p in clinical.PROBABILITIES], np.array(clinical.PROBABILITIES)
    of_unit = {arm: pair for (arm, of), pair in scored.items() if of == unit}
    cases, first = next(iter(of_unit.values()))
    rows = [
        [arm, target.name, *starmap(share, benefit)]
        for arm, (_, of_arm) in of_unit.items()
        for target, benefit in zip(of_arm.targets, of_arm.benefit, strict=True)
    ]
    rows += [
        [figures.ALL_POSITIVE, target.name, *map(percent, clinical.all_positive(cases, target.leaves, grid))]
        for target in first.targets
    ]
    caption = f"Net benefit per 100 cases ({unit}s) at some threshold probabilities, with 95 % intervals."
    return Table(caption, ["variant", "target", *at], rows, labels=2)
