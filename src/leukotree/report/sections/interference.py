"""The section about interference: how the levels' gradients agree in a shared backbone, as the probe of the
runs measured it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leukotree.report import figures, prose, scores
from leukotree.report.blocks import Figure, Section, Table, plural, text
from leukotree.report.summary import Run, StudySummary

FILE = "interference.jsonl"
MEASURES = ("cosine", "control", "conflict", "norm_ratio")


def read(runs: Sequence[Run]) -> pd.DataFrame:
    """A row per (arm, run, epoch from 1, block, levels) with the measures; `levels` is "1 and 2". Empty if
    none was probed."""
    rows = []
    for run in runs:
        for row in _lines(run.folder / FILE):
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
    """The last epoch by pair of levels and by block, and the cosine over epochs; None where no run has a
    probe."""
    probed = read(summary.runs)
    if probed.empty:
        return None
    last = probed[probed["epoch"] == probed.groupby("run")["epoch"].transform("max")]
    by_block = last.groupby(["arm", "levels", "block"], sort=False)[list(MEASURES)].mean().reset_index()
    rows = []
    for (arm, levels), blocks in by_block.groupby(["arm", "levels"], sort=False):
        means, lowest = blocks[list(MEASURES)].mean(), blocks.iloc[int(blocks["cosine"].argmin())]
        rows.append(
            [
                str(arm),
                str(levels),
                *(f"{means[name]:.2f}" for name in MEASURES),
                f"{lowest['block']} ({lowest['cosine']:.2f})",
            ]
        )
    header = [
        "variant",
        "levels",
        "cosine",
        "cosine, labels shuffled",
        "conflicts",
        "norm ratio",
        "block of the lowest cosine",
    ]
    over_blocks = (
        probed.groupby(["arm", "levels", "epoch"], sort=False)[["cosine", "control"]].mean().reset_index()
    )
    drawn = probed["arm"].unique()[: scores.MOST_ARMS]
    n = plural(int(probed["run"].nunique()), "run")
    return Section(
        "Interference",
        [
            Table(f"After the last probed epoch, mean over blocks and {n}.", header, rows, labels=2),
            text(prose.INTERFERENCE),
            Figure(
                "interference",
                "Cosine of two levels' gradients over epochs, mean over blocks and runs. Dashed: labels shuffled.",
                figures.interference(over_blocks[over_blocks["arm"].isin(drawn)], "epoch"),
            ),
            Figure(
                "interference-blocks",
                "The same after the last probed epoch, by block of the backbone, from the input on.",
                figures.interference(by_block[by_block["arm"].isin(drawn)], "block"),
            ),
        ],
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The rows up to the first line that is not complete; none without the file."""
    rows = []
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
        for line in file:
            rows.append(json.loads(line))
    return rows
