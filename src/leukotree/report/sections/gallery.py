"""The section about difficult images: confident errors, and near ties between two leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree.evaluation import decide
from leukotree.report import scores, thumbnails
from leukotree.report.blocks import Block, Gallery, Picture, Section, Table, Text, probability, text
from leukotree.report.prose import answers as prose
from leukotree.report.sections.card import fingerprints
from leukotree.report.summary import Arm, Run, StudySummary

TITLE = "Difficult images"
MOST = 6
"""Images of each kind and arm."""
CLOSE = 0.1
"""Two leaves are a near tie if their probabilities differ by less."""
ERROR, TIE = "confident error", "near tie"


def section(summary: StudySummary, images: bool = False) -> Section | None:
    """A table of both kinds of each arm, with small images where they may be shown: those of phantoms, and
    others if `images`. None where every answer is right and certain."""
    rows = pd.concat([_of_arm(arm) for arm in scores.shown(summary)], ignore_index=True)
    if rows.empty:
        return None
    table = Table(
        "The most confident errors, and the images whose two most probable leaves are closest, of the first "
        "seed of each fold. P: the raw probability of the leaf.",
        ["variant", "kind", "image", "true", "decided", "P(decided)", "P(true)", "second leaf", "P(second)"],
        [
            [
                *(str(row[name]) for name in ("arm", "kind", "key", "true", "decided")),
                probability(row["p_decided"]),
                probability(row["p_true"]),
                str(row["second"]),
                probability(row["p_second"]),
            ]
            for row in rows.to_dict("records")
        ],
        labels=5,
        file="difficult",
    )
    blocks: list[Block] = [text(prose.DIFFICULT, file=table.file)]
    allowed = images or set(rows["source"]) == {thumbnails.PHANTOM}
    if allowed:
        shards, keys = Path(summary.base.data.shards), rows["key"].unique().tolist()
        blocks += _galleries(rows, thumbnails.read(shards, fingerprints(summary.runs), keys))
    elif summary.dataset is not None:
        blocks.append(Text("The images are not shown. `leukotree report STUDY --images` shows them.", "note"))
    errors = int((rows["kind"] == ERROR).sum())
    return Section(
        TITLE, [*blocks, table], line=f"{errors} confident errors, {len(rows) - errors} near ties."
    )


def _of_arm(arm: Arm) -> pd.DataFrame:
    """The rows of an arm: MOST errors with the largest probability, and MOST images with the closest two
    leaves."""
    frames = [_of_run(run) for run in scores.one_per_fold(arm.runs)]
    every = pd.concat(frames, ignore_index=True)
    errors = every[every["true"] != every["decided"]].sort_values(
        ["p_decided", "key"], ascending=[False, True], kind="stable"
    )
    ties = every.assign(gap=every["p_first"] - every["p_second"]).sort_values(["gap", "key"], kind="stable")
    close = ties[ties["gap"] < CLOSE]
    return pd.concat(
        [errors.head(MOST).assign(kind=ERROR), close.head(MOST).assign(kind=TIE)], ignore_index=True
    ).assign(arm=arm.name)


def _of_run(run: Run) -> pd.DataFrame:
    """A row for each image of a run."""
    leaves = np.asarray(run.taxonomy.leaves, dtype=object)
    p = np.exp(decide.leaf_logp(run.logp, run.taxonomy))
    rows = np.arange(len(p))
    first, second = np.argsort(-p, axis=1, kind="stable")[:, :2].T
    return pd.DataFrame(
        {
            "key": run.images["key"].to_numpy(),
            "source": run.images["source"].to_numpy(),
            "true": leaves[run.true],
            "decided": leaves[run.predicted],
            "second": leaves[np.where(first == run.predicted, second, first)],
            "p_decided": p[rows, run.predicted],
            "p_true": p[rows, run.true],
            "p_first": p[rows, first],
            "p_second": p[rows, second],
        }
    )


def _galleries(rows: pd.DataFrame, shown: Mapping[str, bytes]) -> list[Block]:
    """A gallery of each arm and kind."""
    blocks: list[Block] = []
    for (arm, kind), part in rows.groupby(["arm", "kind"], sort=False):
        pictures = _pictures(part, shown)
        blocks += [Gallery(f"`{arm}`: {kind}s", pictures)] if pictures else []
    return blocks


def _pictures(part: pd.DataFrame, shown: Mapping[str, bytes]) -> Sequence[Picture]:
    return [
        Picture(
            shown[row["key"]],
            f"{row['key']}: {row['true']}, decided {row['decided']} ({probability(row['p_decided'])})",
        )
        for row in part.to_dict("records")
        if row["key"] in shown
    ]
