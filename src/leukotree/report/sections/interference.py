"""The section about interference: how far the levels' gradients agree in a shared backbone.

The probe of the runs measured it, see `training.interference`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leukotree.records import runfolder
from leukotree.report import figures, scores
from leukotree.report.blocks import Figure, Section, Table, plural, text
from leukotree.report.prose import runs as prose
from leukotree.report.summary import Run, StudySummary

MEASURES = ("cosine", "control", "conflict", "norm_ratio")


def read(runs: Sequence[Run]) -> pd.DataFrame:
    """A row per (arm, run, epoch from 1, block, levels) with the measures. `levels` is "1 and 2". Empty if no
    run was probed."""
    rows = []
    for run in runs:
        for row in _lines(run.folder / runfolder.INTERFERENCE):
            levels = " and ".join(map(str, row["levels"]))
            rows.append(
                {
                    "arm": run.arm,
                    "run": run.name,
                    "epoch": row["epoch"] + 1,
                    "block": row["block"],
                    "levels": levels,
                    **{name: row[name] for name in MEASURES},
                }
            )
    return pd.DataFrame(rows)


def section(summary: StudySummary) -> Section | None:
    """A table of the last probed epoch by pair of levels, and the cosine over epochs and over blocks. None
    where no run was probed."""
    probed = read(summary.runs)
    if probed.empty:
        return None
    last = probed[probed["epoch"] == probed.groupby("run")["epoch"].transform("max")]
    by_block = last.groupby(["arm", "levels", "block"], sort=False)[list(MEASURES)].mean().reset_index()
    over_epochs = (
        probed.groupby(["arm", "levels", "epoch"], sort=False)[["cosine", "control"]].mean().reset_index()
    )
    drawn = probed["arm"].unique()[: scores.MOST_ARMS]
    return Section(
        "Interference",
        [
            _table(by_block, runs=int(probed["run"].nunique())),
            text(prose.INTERFERENCE),
            Figure(
                "interference",
                "Cosine of two levels' gradients over epochs, mean over blocks and runs. Dashed: labels "
                "shuffled.",
                figures.interference(over_epochs[over_epochs["arm"].isin(drawn)], "epoch"),
            ),
            Figure(
                "interference-blocks",
                "Cosine after the last probed epoch, by block of the backbone, from the input to the output.",
                figures.interference(by_block[by_block["arm"].isin(drawn)], "block"),
            ),
        ],
    )


def _table(by_block: pd.DataFrame, runs: int) -> Table:
    rows = []
    for (arm, levels), blocks in by_block.groupby(["arm", "levels"], sort=False):
        means, lowest = blocks[list(MEASURES)].mean(), blocks.iloc[int(blocks["cosine"].argmin())]
        cells = [f"{means[name]:.2f}" for name in MEASURES]
        rows.append([str(arm), str(levels), *cells, f"{lowest['block']} ({lowest['cosine']:.2f})"])
    header = [
        "variant",
        "levels",
        "cosine",
        "cosine, labels shuffled",
        "conflicts",
        "norm ratio",
        "block of the lowest cosine",
    ]
    return Table(
        f"After the last probed epoch, mean over blocks and {plural(runs, 'run')}.", header, rows, labels=2
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The rows up to the first line that is not complete. None without the file."""
    rows = []
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
        for line in file:
            rows.append(json.loads(line))
    return rows
