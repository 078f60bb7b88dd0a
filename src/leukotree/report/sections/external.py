"""The section about other data sets: what the models lose there, beside their own test folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leukotree.evaluation.metrics import FLOOR
from leukotree.report import external, external_scores, scores
from leukotree.report.blocks import Block, Section, Table, Text, percent, plural, points, share, text
from leukotree.report.external import Outside
from leukotree.report.external_scores import ACCURACY, GAP, OUTSIDE, OWN, WHOLE, Compared, Row
from leukotree.report.prose import data as prose
from leukotree.report.sections import calibration
from leukotree.report.summary import StudySummary
from leukotree.stats import CalibrationError, Score

Arms = dict[str, tuple[Outside, list[Compared]]]
"""Arm -> its runs outside, and their scores on all images and on each source."""


def section(summary: StudySummary) -> Section | None:
    """For each other data set: which images it has, the answer in a sentence for each arm, and two tables.
    None where no run was evaluated on one."""
    blocks: list[Block] = []
    for name in external.names(summary):
        of_arms: Arms = {}
        for arm in scores.shown(summary):
            if (of := external.outside(arm, name, summary.decision)) is not None:
                _, temperatures = calibration.judged(summary, arm)
                of_arms[arm.name] = of, external_scores.compared(arm, of, temperatures)
        if of_arms:
            blocks += _of_set(name, of_arms)
    if not blocks:
        return None
    return Section("Other data sets", [*blocks, text(prose.EXTERNAL, floor=FLOOR)])


def _of_set(name: str, of_arms: Arms) -> list[Block]:
    of, compared = next(iter(of_arms.values()))
    first = compared[0]
    counts = np.bincount(of.true, minlength=of.true.max(initial=-1) + 1)
    leaves = of.runs[0].taxonomy.leaves
    listed = ", ".join(f"{leaves[leaf]} {n}" for leaf, n in enumerate(counts) if n)
    patients = plural(first.patients, "patient") if first.patients else "no patient ids"
    blocks: list[Block] = [
        Text(
            f"`{name}` ({Path(of.about.given).name}): {plural(first.images, 'image')}, {patients}; {listed}. "
            + " ".join(_answer(arm, rows[0]) for arm, (_, rows) in of_arms.items())
        )
    ]
    blocks += _notes(name, of_arms)
    blocks += [_scores(name, of_arms), _calibration(name, of_arms)]
    return blocks


def _answer(arm: str, of: Compared) -> str:
    """What an arm loses, in a sentence."""
    rows = {row.name: row for row in of.rows}
    row = rows[ACCURACY]
    bounds = row.difference.interval
    between = "not estimable" if bounds is None else f"{points(bounds[0])} to {points(bounds[1])}"
    return (
        f"`{arm}` is right for {percent(row.outside.value)} % of them, and for {percent(row.own.value)} % of "
        f"its own test images of the same leaves: {points(row.difference.value)} points (95 %: {between})."
    )


def _notes(name: str, of_arms: Arms) -> list[Block]:
    of, compared = next(iter(of_arms.values()))
    blocks: list[Block] = []
    if of.about.left_out:
        listed = ", ".join(f"{count} {reason}" for reason, count in of.about.left_out.items())
        blocks.append(Text(f"Left out of `{name}`: {listed}.", "note"))
    blocks += [Text(f"{note}.", "note") for note in of.about.notes]
    if compared[0].by_image:
        blocks.append(text(prose.EXTERNAL_BY_IMAGE, "warning", name=name))
    for arm, (outside, _) in of_arms.items():
        if outside.absent:
            total = outside.absent + len(outside.runs)
            blocks.append(
                Text(
                    f"{outside.absent} of {total} runs of `{arm}` were not evaluated on `{name}`, or have "
                    "other weights now: evaluate again.",
                    "warning",
                )
            )
    return blocks


def _scores(name: str, of_arms: Arms) -> Table:
    rows = [
        [arm, of.source, row.name, *_cells(row)]
        for arm, (_, compared) in of_arms.items()
        for of in compared
        for row in of.rows
    ]
    header = ["variant", "source", "score", "own test folds", "own, same leaves", name]
    caption = (
        f"Scores on `{name}` beside those on the own test folds, in per cent, with 95 % intervals by "
        "patient. Difference: outside minus own, same leaves, in points. Mean over runs."
    )
    return Table(caption, [*header, "difference", "95 % of it"], rows, labels=3)


def _cells(row: Row) -> list[str]:
    signed = row.name == GAP
    return [
        *(_score(score, signed) for score in (row.whole, row.own, row.outside)),
        points(row.difference.value),
        _points(row.difference.interval),
    ]


def _score(score: Score, signed: bool) -> str:
    if signed:
        known = not np.isnan(score.value)
        return f"{points(score.value)} ({_points(score.interval)})" if known else "–"
    return share(*score)


def _points(bounds: tuple[float, float] | None) -> str:
    return "not estimable" if bounds is None else f"{points(bounds[0])} to {points(bounds[1])}"


def _calibration(name: str, of_arms: Arms) -> Table:
    rows = []
    for arm, (_, compared) in of_arms.items():
        for of in compared:
            for state, errors in (("raw", of.raw), ("scaled", of.scaled)):
                if errors:
                    rows.append(
                        [arm, of.source, state, *(_error(errors[side]) for side in (WHOLE, OWN, OUTSIDE))]
                    )
    header = ["variant", "source", "probabilities", "own test folds", "own, same leaves", name]
    caption = (
        f"Calibration error (ECE, debiased) of the most probable leaf on `{name}`, in per cent, with 95 % "
        "intervals by patient."
    )
    return Table(caption, header, rows, labels=3)


def _error(error: CalibrationError) -> str:
    return share(error.value, error.interval)
