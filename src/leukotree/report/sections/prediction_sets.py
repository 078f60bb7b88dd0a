"""The section about prediction sets: their coverage and size, and the images that no leaf fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from leukotree.evaluation import decide, prediction_sets
from leukotree.report import coverage, figures, scores
from leukotree.report.blocks import Block, Figure, Section, Table, decimal, percent, share, text
from leukotree.report.coverage import Coverage, Limits
from leukotree.report.prose import probabilities as prose
from leukotree.report.sections import calibration
from leukotree.report.sections.mixed import SHARE
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.taxonomy import Taxonomy

CASES = "cases.csv"
"""The file beside the report with the images that no leaf fits."""
NO_LEAF, SIBLINGS, BRANCHES = "low score", "two siblings", "two branches"
COLUMNS = (
    *("variant", "repeat", "fold", "seed", "key", "patient", "source", "leaf", "predicted", "case"),
    *("largest_p", "limit", "first", "p_first", "second", "p_second", "common"),
)
"""`largest_p` and `limit`: the raw score and its limit. `p_first`, `p_second`: scaled where there are
temperatures. `common`: the lowest node above both leaves."""


def section(summary: StudySummary) -> Section:
    """A table and a figure of coverage, a table of the odd images, and a file with their keys."""
    arms = scores.shown(summary)
    limits = {arm.name: coverage.limits(summary, arm) for arm in arms}
    taxonomy = arms[0].runs[0].taxonomy
    of_arms = {
        arm.name: coverage.measured(folds, taxonomy)
        for arm in arms
        if (folds := coverage.sets(arm, limits[arm.name]))
    }
    wanted = summary.operating.coverage
    blocks: list[Block] = []
    if of_arms:
        caption = f"Images whose set has the true leaf. The dotted line is at the wanted {percent(wanted)} %."
        blocks += [
            _table(of_arms, wanted),
            Figure("coverage", caption, figures.coverage(_bars(of_arms), wanted)),
        ]
        blocks.append(text(prose.PREDICTION_SETS))
    if without := [arm.name for arm in arms if arm.name not in of_arms]:
        needed = int(np.ceil(wanted / (1 - wanted) - 1e-9))
        blocks.append(text(prose.NO_SETS, "note", variants=", ".join(without), needed=needed))
    cases = pd.concat([_cases(summary, arm, limits[arm.name]) for arm in arms], ignore_index=True)
    blocks += [
        _counts(arms, cases, limits),
        text(prose.CASES, file=CASES, odd=f"{100 * prediction_sets.ODD:g}"),
    ]
    content = cases.to_csv(index=False, float_format="%.4f", lineterminator="\n").encode()
    return Section("Prediction sets", blocks, files={CASES: content})


def _table(of_arms: Mapping[str, Sequence[Coverage]], wanted: float) -> Table:
    rows = [
        [
            arm,
            row.name,
            share(*row.leaves),
            decimal(*row.size),
            percent(row.empty.value),
            share(*row.nodes),
            decimal(*row.node_size),
            str(row.patients or "unknown"),
        ]
        for arm, rows in of_arms.items()
        for row in rows
    ]
    header = [
        "variant",
        "leaf",
        "leaves: coverage",
        "size",
        "empty",
        "nodes: coverage",
        "leaves below",
        "patients",
    ]
    caption = (
        f"Sets that shall have the true leaf for {percent(wanted)} % of the images. Shares are in per cent."
    )
    return Table(caption, header, rows, labels=2)


def _bars(of_arms: Mapping[str, Sequence[Coverage]]) -> dict[str, list[figures.Bar]]:
    """Kind of the sets -> a bar for each leaf and arm."""
    bars: dict[str, list[figures.Bar]] = {"sets of leaves": [], "nodes": []}
    for arm, rows in of_arms.items():
        for row in rows:
            for of, score in zip(bars.values(), (row.leaves, row.nodes), strict=True):
                low, high = score.interval or (np.nan, np.nan)
                of.append(figures.Bar(row.name, arm, score.value, low, high))
    return bars


def _cases(summary: StudySummary, arm: Arm, limits: Mapping[int, Limits]) -> pd.DataFrame:
    """A row per image and case, by COLUMNS."""
    judged, temperatures = calibration.judged(summary, arm)
    scaled = {run.name: temperatures for run in judged}
    frames = [pd.DataFrame(columns=list(COLUMNS))]
    for run in arm.runs:
        limit = limits.get(run.test_fold)
        logp = calibration.scaled(run, scaled.get(run.name, {}))
        frame = _cases_of_run(run, summary.outer, logp, limit.odd if limit else None)
        frames += [frame] if len(frame) else []
    return frames[0] if len(frames) == 1 else pd.concat(frames[1:], ignore_index=True)


def _cases_of_run(run: Run, outer: int, logp: np.ndarray, limit: float | None) -> pd.DataFrame:
    leaves, taxonomy = np.asarray(run.taxonomy.leaves, dtype=object), run.taxonomy
    largest = np.exp(decide.leaf_logp(run.logp, taxonomy).max(axis=1))
    mixed = decide.mixed(logp, taxonomy)
    p_first = mixed.mass / (1 + mixed.ratio)
    between = mixed.mass - p_first >= SHARE
    common, siblings = _common(taxonomy)
    case = np.where(siblings[mixed.first, mixed.second], SIBLINGS, BRANCHES)
    table = pd.DataFrame(
        {
            "variant": run.arm,
            "repeat": run.repeat,
            "fold": run.test_fold - run.repeat * outer,
            "seed": run.seed,
            **{name: run.images[name].to_numpy() for name in ("key", "patient", "source")},
            "leaf": leaves[run.true],
            "predicted": leaves[run.predicted],
            "case": case,
            "largest_p": largest,
            "limit": np.nan if limit is None else limit,
            "first": leaves[mixed.first],
            "p_first": p_first,
            "second": leaves[mixed.second],
            "p_second": mixed.mass - p_first,
            "common": common[mixed.first, mixed.second],
        },
        columns=list(COLUMNS),
    )
    low = np.zeros(len(table), dtype=bool) if limit is None else largest < limit
    return pd.concat([table[low].assign(case=NO_LEAF), table[between]], ignore_index=True)


def _common(taxonomy: Taxonomy) -> tuple[np.ndarray, np.ndarray]:
    """(L, L) name of the lowest node above two leaves, and whether it is the parent of both."""
    parents = np.array([taxonomy.parent_of[leaf] for leaf in taxonomy.leaves], dtype=object)
    return np.array(taxonomy.lca, dtype=object), np.equal.outer(parents, parents)


def _counts(arms: Sequence[Arm], cases: pd.DataFrame, limits: Mapping[str, Mapping[int, Limits]]) -> Table:
    rows = []
    for arm in arms:
        images = sum(len(run.true) for run in arm.runs)
        judged = sum(len(run.true) for run in arm.runs if run.test_fold in limits[arm.name])
        of_arm = cases["case"][cases["variant"] == arm.name]
        counts = [int((of_arm == case).sum()) for case in (NO_LEAF, SIBLINGS, BRANCHES)]
        shares = [
            f"{count} ({percent(count / of)} %)" if of else "–"
            for count, of in zip(counts, (judged, images, images), strict=True)
        ]
        rows.append([arm.name, *shares, str(images)])
    header = ["variant", NO_LEAF, SIBLINGS, BRANCHES, "images"]
    caption = "Images that no leaf fits, or two. An image counts once per seed."
    return Table(caption, header, rows)
