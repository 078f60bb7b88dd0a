"""The evidence of comparisons: two estimates, each beside its own interval.

The mean over folds is about the methods, trained again. The pooled difference is about these trained models
on other patients. An interval of one is no interval of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from leukotree.report import figures
from leukotree.report.blocks import Table, interval, p_value, percent, plural, points
from leukotree.stats import Comparison

Levels: TypeAlias = Sequence[tuple[str, Sequence[Comparison]]]
"""The levels (image, patient) with their comparisons."""


def trained_again(levels: Levels) -> Table:
    """The evidence about the methods: the mean over folds beside its own interval."""
    rows = [
        [
            f"{row.challenger} − {row.reference}",
            level,
            points(row.mean),
            interval(row.interval),
            p_value(row.p),
            p_value(row.p_holm),
            detectable(row),
        ]
        for level, comparisons in levels
        for row in comparisons
    ]
    header = [
        "difference",
        "level",
        "mean over folds",
        "Nadeau-Bengio 95 %",
        "p",
        "Holm p",
        "smallest detectable (95 % range)",
    ]
    return Table("Trained again: evidence about the methods, in percentage points.", header, rows, labels=2)


def other_patients(levels: Levels) -> Table:
    """The evidence about the trained models: the pooled difference beside its own interval."""
    rows = [
        [
            f"{row.challenger} − {row.reference}",
            level,
            points(row.pooled),
            interval(bootstrap(row)),
            _mcnemar(row),
            _patients(row),
        ]
        for level, comparisons in levels
        for row in comparisons
    ]
    header = [
        "difference",
        "level",
        "pooled over folds",
        "bootstrap 95 %, by patient",
        "McNemar, patients",
        "patients",
    ]
    return Table(
        "Other patients: evidence about these trained models, in percentage points.", header, rows, labels=2
    )


def detectable(row: Comparison) -> str:
    """The smallest detectable difference, and the range in which it is known. With three folds an end of the
    range may be above the largest difference that there can be."""
    if row.detectable_range is None:
        return percent(row.detectable)
    value, low, high = (
        "over 100" if one > 1 else percent(one) for one in (row.detectable, *row.detectable_range)
    )
    return f"{value} ({low} to {high})"


def _mcnemar(row: Comparison) -> str:
    if row.mcnemar is None:
        return "–"
    return f"{row.mcnemar.first_only} : {row.mcnemar.second_only}, p {p_value(row.mcnemar.p)}"


def _patients(row: Comparison) -> str:
    """The number of patients, and of the images without a patient id."""
    if row.alone == row.clusters:
        return "unknown"
    images = f" and {plural(row.alone, 'image')} without one" if row.alone else ""
    return f"{row.clusters - row.alone}{images}"


def bars(levels: Levels) -> list[figures.Bar]:
    """Two bars for each comparison and level: the two estimates, each with its own interval."""
    drawn = []
    for level, rows in levels:
        for row in rows:
            name = f"{row.challenger} − {row.reference}"
            low, high = row.interval or (math.nan, math.nan)
            drawn.append(figures.Bar(name, f"{level}, mean over folds", row.mean, low, high))
            low, high = bootstrap(row) or (math.nan, math.nan)
            drawn.append(figures.Bar(name, f"{level}, pooled", row.pooled, low, high))
    return drawn


def bootstrap(row: Comparison) -> tuple[float, float] | None:
    """The bootstrap interval. None where no image has a patient id, because each image would count as a
    patient."""
    return None if row.alone == row.clusters else row.bootstrap
