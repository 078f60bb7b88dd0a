"""The scores of one arm, for a model card: the rows that the study's report has for it.

Each number is computed by the functions of the report's sections, so that it is the number of the report.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from leukotree import stats
from leukotree.evaluation import metrics
from leukotree.report import scores
from leukotree.report.blocks import Section, Table, mean_sd, share
from leukotree.report.collect import collect
from leukotree.report.prose import lead as prose
from leukotree.report.sections import calibration, overview, patients, tree
from leukotree.report.summary import Arm, StudySummary
from leukotree.spec import RunSpec


def of_run(folder: Path, spec: RunSpec) -> StudySummary:
    """The summary of a study with one run. Raises InputError as `collect`, such as for a stale run."""
    row = {
        "variant": spec.variant,
        "repeat": spec.data.repeat,
        "test_fold": spec.data.test_fold,
        "seed": spec.seed,
        "run_name": folder.name,
    }
    study: dict[str, Any] = {
        "study": folder.parent.name,
        "base": {"data": {"shards": spec.data.shards}},
        "variants": [spec.variant],
        "seeds": [spec.seed],
        "search": {"trials": 0},
    }
    return collect(folder.parent, study, [row])


def arm_of(summary: StudySummary, run_name: str) -> Arm | None:
    """The arm with a run of this name; None where the study has no such run."""
    arms = [arm for arm in summary.arms if any(run.name == run_name for run in arm.runs)]
    return arms[0] if arms else None


def arm_of_variant(summary: StudySummary, variant: str) -> Arm | None:
    """The arm of a variant with chosen values; None where it has no finished run."""
    arms = [arm for arm in summary.arms if arm.cell is None and arm.variant == variant and arm.runs]
    return arms[0] if arms else None


def tables(summary: StudySummary, arm: Arm) -> list[Table]:
    """The scores of an arm: over folds, over patients with intervals, of each leaf, and the calibration."""
    shown = scores.shown(summary)
    if arm.name not in [other.name for other in shown]:
        summary = dataclasses.replace(summary, arms=(arm,), primary=())
        shown = [arm]
    by_fold = scores.per_fold(scores.per_run(summary, shown))
    of_patients = patients.section(summary, by_fold)
    parts = [
        _over_folds(summary, by_fold[by_fold["arm"] == arm.name]),
        _pooled(arm),
        *_rows(of_patients, arm)[:1],
        *_rows(tree.leaves(summary), arm),
        *_rows(calibration.section(summary), arm),
    ]
    return [part for part in parts if part.rows]


def _over_folds(summary: StudySummary, folds: Any) -> Table:
    unit = scores.unit(summary.runs) or "patient"
    names = [name.format(unit=unit) for name in overview.COLUMNS.values()]
    row = [mean_sd(folds[column].tolist()) for column in overview.COLUMNS]
    caption = "Test folds, mean ± standard deviation over outer folds, in per cent."
    return Table(caption, [*names, "folds"], [[*row, str(len(folds))]], labels=0)


def _pooled(arm: Arm) -> Table:
    """Accuracy and macro F1 of the images of all folds together, with intervals over patients."""
    clusters = scores.pooled_clusters(arm.runs, scores.image_clusters)
    known = np.any(clusters.names != "")
    table = clusters.counts.sum(axis=0)
    row = []
    for statistic in (stats.accuracy, stats.macro_f1):
        bounds = stats.intervals([clusters], statistic)[0] if known else None
        row.append(share(float(statistic(table)), bounds))
    n_patients = int((clusters.names != "").sum())
    caption = (
        "Images of all test folds together, seeds averaged, in per cent, with 95 % intervals over patients. "
        f"Below {metrics.FLOOR} patients, and without ids of patients, an interval is not estimable."
    )
    counts = [str(round(table.sum())), str(n_patients) if n_patients else "unknown"]
    return Table(caption, ["accuracy", "macro F1", "images", "patients"], [[*row, *counts]], labels=0)


def _rows(section: Section, arm: Arm) -> list[Table]:
    """The tables of a section with the rows of one arm, without the column that names it."""
    return [
        dataclasses.replace(
            block,
            header=block.header[1:],
            rows=[row[1:] for row in block.rows if row[0] == arm.name],
            labels=block.labels - 1,
        )
        for block in section.blocks
        if isinstance(block, Table)
    ]


def warnings(summary: StudySummary) -> list[str]:
    """What limits the scores, as the report says it."""
    texts = [block.text for block in overview.unchecked(summary)]
    if summary.clean_fold is not None:
        texts.append(" ".join(prose.OPTIMISTIC.split()))
    if scores.unit(summary.runs) is None:
        texts.append("The images have no patient ids, so no claim about patients can be made.")
    return texts
