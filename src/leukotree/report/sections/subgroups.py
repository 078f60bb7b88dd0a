"""The section about subgroups: scores by source, site and scanner, and differences between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.evaluation.metrics import FLOOR
from leukotree.report import scores
from leukotree.report.blocks import Block, Section, Table, Text, interval, percent, plural, points, text
from leukotree.report.prose import data as prose
from leukotree.report.summary import Arm, StudySummary
from leukotree.stats import GroupScores, Score

FIELDS = ("source", "site", "scanner")
MOST = 8
"""Largest number of groups of a field. With more, the smallest are one group."""
NO_VALUE = "(not recorded)"
FLAT = "not estimable"


def section(summary: StudySummary) -> Section:
    """Two tables and how to read them, or a sentence that says why there are no groups."""
    names = summary.runs[0].taxonomy.leaves
    images = scores.answered(summary.runs, names).images
    fields = _fields(images)
    if not fields:
        return Section("Subgroups", [Text(_nothing(images))])
    rows: list[list[str]] = []
    leaves: list[list[str]] = []
    for name, group_of in fields.items():
        order = _largest_first(group_of)
        for arm in scores.shown(summary):
            for value, group in zip(order, _scores(arm, group_of, order, names), strict=True):
                if group.images:
                    rows.append([name, value, arm.name, *_cells(group)])
                    leaves.append([name, value, arm.name, *_sensitivities(group)])
    looks = sum(group_of.nunique() for group_of in fields.values())
    blocks: list[Block] = [
        text(prose.SUBGROUPS, "note", groups=looks, floor=FLOOR),
        Table(
            "Scores by group, all folds pooled, in per cent. Difference: mean sensitivity minus that of the "
            "largest group, in points, over the leaves that have enough patients in both.",
            [
                *("by", "group", "variant", "images", "patients", "accuracy", "95 %", "macro F1", "95 %"),
                *("difference", "95 % of it", "leaves compared"),
            ],
            rows,
            labels=3,
        ),
        Table(
            "Sensitivity of each leaf by group, in per cent, with 95 % intervals.",
            ["by", "group", "variant", *names],
            leaves,
            labels=3,
        ),
    ]
    return Section("Subgroups", blocks)


def _fields(images: pd.DataFrame) -> dict[str, pd.Series]:
    """Name of a field with two or more groups -> the group of each image, by key. Two fields with the same
    groups of images are one: "source = site"."""
    fields: dict[str, pd.Series] = {}
    for field in FIELDS:
        group_of = _groups(images, field)
        if group_of.nunique() < 2:
            continue
        # Codes are in the order of the images, so they are equal for equal partitions.
        codes = pd.factorize(group_of)[0]
        same = [name for name, other in fields.items() if np.array_equal(pd.factorize(other)[0], codes)]
        if same:
            fields = {f"{name} = {field}" if name in same else name: other for name, other in fields.items()}
        else:
            fields[field] = group_of
    return fields


def _groups(images: pd.DataFrame, field: str) -> pd.Series:
    """(N,) str by key: the group of each image, at most MOST different ones."""
    column = images[field] if field in images else pd.Series("", index=images.index)
    values = column.fillna("").replace("", NO_VALUE).set_axis(images["key"])
    order = _largest_first(values)
    if len(order) <= MOST:
        return values
    return values.where(values.isin(order[: MOST - 1]), f"({len(order) - MOST + 1} others)")


def _largest_first(group_of: pd.Series) -> list[str]:
    counts = {str(value): int(n) for value, n in group_of.value_counts().items()}
    return sorted(counts, key=lambda value: (-counts[value], value))


def _scores(arm: Arm, group_of: pd.Series, order: Sequence[str], leaves: Sequence[str]) -> list[GroupScores]:
    """The scores of an arm in each group, over the folds that it has."""
    tested = scores.answered(arm.runs, leaves)
    group = pd.Index(order).get_indexer(pd.Index(group_of[tested.images["key"]]))
    patient = tested.images["patient"].tolist()
    return stats.in_groups(patient, group, tested.true, tested.answers, len(order), len(leaves))


def _cells(group: GroupScores) -> list[str]:
    difference = ["–", "–", "–"]
    if group.difference is not None:
        bounds = group.difference.interval
        between = FLAT if bounds is None else f"{points(bounds[0])} to {points(bounds[1])}"
        difference = [points(group.difference.value), between, str(group.leaves_compared)]
    return [
        str(group.images),
        str(group.patients) if group.patients else "unknown",
        *(cell for score in (group.accuracy, group.macro_f1) for cell in _score(score)),
        *difference,
    ]


def _score(score: Score) -> list[str]:
    return [percent(score.value), interval(score.interval)]


def _sensitivities(group: GroupScores) -> list[str]:
    """A cell per leaf: the recall with its interval, or the number of patients where these are too few."""
    cells = []
    for score, patients in zip(group.sensitivity, group.patients_per_leaf, strict=True):
        if np.isnan(score.value):
            cells.append("–")
        elif patients < FLOOR:
            cells.append(f"{FLAT} ({plural(int(patients), 'patient')})")
        else:
            between = "no spread" if score.interval is None else interval(score.interval)
            cells.append(f"{percent(score.value)} ({between})")
    return cells


def _nothing(images: pd.DataFrame) -> str:
    """Why there are no groups."""
    parts = []
    for field in FIELDS:
        recorded = field in images and bool((images[field].fillna("") != "").any())
        parts.append(f"one {field}" if recorded else f"no {field} recorded")
    return f"The tested images have {', '.join(parts)}, so there are no groups to compare."
