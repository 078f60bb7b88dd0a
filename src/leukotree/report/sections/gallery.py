"""The section about difficult images: confident errors, and near ties between two leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from leukotree.evaluation import difficult
from leukotree.records import explanations
from leukotree.report import scores, thumbnails
from leukotree.report.blocks import Block, Gallery, Picture, Section, Table, Text, probability, text
from leukotree.report.prose import answers as prose
from leukotree.report.summary import Arm, StudySummary

TITLE = "Difficult images"
MAP = "gradcam"
"""The method of the maps that are shown."""


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
        shards, keys = summary.base.data.shards, rows["key"].unique().tolist()
        blocks += _galleries(rows, thumbnails.read(shards, scores.fingerprints(summary.runs), keys))
    elif summary.dataset is not None:
        blocks.append(Text("The images are not shown. `leukotree report STUDY --images` shows them.", "note"))
    errors = int((rows["kind"] == difficult.ERROR).sum())
    return Section(
        TITLE, [*blocks, table], line=f"{errors} confident errors, {len(rows) - errors} near ties."
    )


def _of_arm(arm: Arm) -> pd.DataFrame:
    """The difficult images of an arm, with the `folder` of the run that answered."""
    every = [
        difficult.answers(
            run.images["key"].to_numpy(), run.true, run.predicted, run.logp, run.taxonomy
        ).assign(source=run.images["source"].to_numpy(), folder=str(run.folder))
        for run in scores.one_per_fold(arm.runs)
    ]
    return difficult.chosen(pd.concat(every, ignore_index=True)).assign(arm=arm.name)


def _galleries(rows: pd.DataFrame, shown: Mapping[str, bytes]) -> list[Block]:
    """A gallery of each arm and kind."""
    blocks: list[Block] = []
    for (arm, kind), part in rows.groupby(["arm", "kind"], sort=False):
        pictures = _pictures(part, shown)
        blocks += [Gallery(f"`{arm}`: {kind}s", pictures)] if pictures else []
    return blocks


def _pictures(part: pd.DataFrame, shown: Mapping[str, bytes]) -> Sequence[Picture]:
    """The image with its maps where it was explained, else the image alone."""
    pictures = []
    for row in part.to_dict("records"):
        if row["key"] not in shown:
            continue
        caption = f"{row['key']}: {row['true']}, decided {row['decided']} ({probability(row['p_decided'])})"
        maps = explanations.panel(Path(row["folder"]), MAP, row["key"])
        small = thumbnails.of_panel(maps) if maps else None
        pictures.append(Picture(small or shown[row["key"]], caption, wide=small is not None))
    return pictures
