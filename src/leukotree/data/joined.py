"""Several manifests as one table: each image path starts at its own manifest, and each source keeps its name.

A source is a name space: an id of a patient means one person within its source. Manifests that name the same
source therefore share its patients.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leukotree.data import manifest
from leukotree.data.patients.doubts import Case, Doubt
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

_PLACE = ("image", "box")
"""The columns that say which part of which file an image is."""
_OWNERS = ("source", "patient", "group_id")
"""The columns that all parts of a file share."""


def read(paths: Sequence[str | Path], taxonomy: Taxonomy) -> tuple[pd.DataFrame, tuple[Doubt, ...]]:
    """Return the rows of all manifests, in their order, and a doubt about patients of several manifests.

    The columns are those of `manifest.read`. A column that only some manifests have is "" in the others.

    Raises InputError as `manifest.read`, for a manifest that is named twice, and for an image of two
    manifests.
    """
    if not paths:
        raise InputError("no manifest: name at least one")
    whole = [os.path.realpath(path) for path in paths]
    for place, path in enumerate(paths):
        if whole[place] in whole[:place]:
            raise InputError(f"{path}: is named twice; name each manifest once")
    frames = [manifest.read(path, taxonomy).assign(manifest=str(path)) for path in paths]
    rows = pd.concat(frames, ignore_index=True)
    texts = rows.columns.difference(["row"])
    rows[texts] = rows[texts].fillna("")
    _refuse_shared(rows)
    return rows.drop(columns="manifest"), _shared_patients(rows)


def _refuse_shared(rows: pd.DataFrame) -> None:
    """Raise InputError for a file that two manifests name: with the same box, or for different patients or
    sources. `manifest.read` refuses both within one manifest."""
    again = rows.duplicated([*_PLACE])
    first_of_file = rows.groupby("image", sort=False)[[*_OWNERS]].transform("first")
    again |= (rows[[*_OWNERS]] != first_of_file).any(axis=1)
    if not again.any():
        return
    second = rows[again].iloc[0]
    of_file = rows[rows["image"] == second["image"]]
    first = of_file[of_file["manifest"] != second["manifest"]].iloc[0]
    others = int(again.sum()) - 1
    count = f" (and {others} more)" if others else ""
    raise InputError(
        f"{second['manifest']} row {second['row']}: image {second['name']!r} is already in row "
        f"{first['row']} of {first['manifest']}; take it out of one of them{count}"
    )


def _shared_patients(rows: pd.DataFrame) -> tuple[Doubt, ...]:
    """Doubts about sources whose ids, or names of images without an id, stand in several manifests."""
    single = rows["group"] == "image"
    people = _in_several(rows[~single], "patient")
    pictures = _in_several(rows[single], "name")
    advice = "If the manifests are of different laboratories, give each a source of its own"
    doubts = (
        Doubt(
            "one-source",
            "source(s) have patient ids that are in several manifests, such as",
            people,
            f"Each such id counts as one patient. {advice}",
        ),
        Doubt(
            "one-source",
            "source(s) have names of images that are in several manifests, such as",
            pictures,
            f"Images of one name count as one group. {advice}",
        ),
    )
    return tuple(doubt for doubt in doubts if doubt.cases)


def _in_several(rows: pd.DataFrame, column: str) -> tuple[Case, ...]:
    """A case with the first value of each source whose values stand in several manifests."""
    named = rows[["source", column, "manifest"]].drop_duplicates()
    several = named.groupby(["source", column])["manifest"].nunique()
    shared = several[several > 1].reset_index()
    return tuple(
        Case((str(part[column].iloc[0]),), (str(source),)) for source, part in shared.groupby("source")
    )
