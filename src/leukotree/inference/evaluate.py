"""Predict another data set with each run of a study by itself, and store the predictions in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import progress
from leukotree.data import described
from leukotree.data.patients import identities
from leukotree.distributed.engine import Engine
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.inference import known, predict
from leukotree.inference.features import Features
from leukotree.inference.images import Images
from leukotree.inference.loaded import load
from leukotree.inference.members import Member
from leukotree.records import external
from leukotree.records.external import About, Stored
from leukotree.records.predictions import PERSON
from leukotree.taxonomy import Taxonomy

BY_IMAGE, BY_PATIENT, BROKEN = "images of the study", "images of patients of the study", "broken images"
"""Reasons why images are left out."""


class Evaluated(NamedTuple):
    """What was done."""

    about: About
    done: int
    """Runs whose predictions were there."""
    predicted: int
    """Runs that predicted now."""


def with_leaves(images: Images, taxonomy: Taxonomy, given: str) -> Images:
    """The images with the leaves of the tree in its spelling. Raises InputError for a leaf that the tree
    lacks: no score could be computed for it."""
    spelled = {identities.normal(leaf): leaf for leaf in taxonomy.leaves}
    leaf = images.table["leaf"].replace(spelled)
    if (unknown := ~leaf.isin(taxonomy.leaves)).any():
        name, count = leaf[unknown].iloc[0], int((leaf == leaf[unknown].iloc[0]).sum())
        inner = ", but an inner node" if name in taxonomy.nodes else ""
        raise InputError(
            f"{given}: {name!r} ({count} images) is no leaf of the study{inner}; its leaves are "
            f"{', '.join(taxonomy.leaves)}: give these images another leaf, or leave them out"
        )
    return Images(
        images.table.assign(leaf=leaf),
        images.size,
        images.decode,
        images.across_sources,
        images.broken,
        images.notes,
    )


def evaluate(
    runs: Sequence[Member], images: Images, place: Path, given: str, engine: Engine, *, workers: int
) -> Evaluated:
    """Store the predictions of each run for the images, in the folder `place` (see `records.external`).

    Images that the study knows, and those of its patients, are left out and counted. Runs whose predictions
    are there are skipped, so a command that was interrupted continues.

    Args:
        images: with leaves of the runs' trees.
        given: the shards or the manifest, for a reader.
        workers: decoding threads.

    Raises InputError where the data set of the study is not here, where no image is left, and for a run
    without weights; RunFailed as `predict.outputs`.
    """
    of_images, of_patients, notes = known.in_study(images, runs[0])
    rows = np.flatnonzero(~(of_images | of_patients))
    if not len(rows):
        raise InputError(f"{given}: all of its images, or their patients, are in the study; nothing is left")
    table = images.table.iloc[rows].reset_index(drop=True)
    counted = {
        BY_IMAGE: int(of_images.sum()),
        BY_PATIENT: int(of_patients.sum()),
        BROKEN: len(images.broken),
    }
    left_out = {reason: count for reason, count in counted.items() if count}
    about = About(given, external.fingerprint(table), len(table), left_out, [*images.notes, *notes])
    frame = _frame(table, images.across_sources)
    try:
        with external.locked(place):
            external.write_about(place, about)
            todo = [run for run in runs if not external.is_done(place, run.folder, about.fingerprint)]
            _predict(todo, images, rows, place, engine, workers, about, frame)
    except OSError as error:
        raise RunFailed(
            f"{place}: cannot be written: {one_line(error)}; fix that and run it again to continue", "disk"
        ) from error
    return Evaluated(about, len(runs) - len(todo), len(todo))


def _predict(
    todo: Sequence[Member],
    images: Images,
    rows: np.ndarray,
    place: Path,
    engine: Engine,
    workers: int,
    about: About,
    frame: pd.DataFrame,
) -> None:
    """Predict by one run after another, and write each at its end."""
    features = Features(images, workers)
    with progress.Bar("evaluate", len(todo) * len(rows), "image") as bar:
        for run in todo:
            loaded = load(run.folder, engine)
            logp = predict.outputs(loaded, images, [rows], workers, bar.advance, features)[rows]
            external.write(place, run.folder, Stored(frame, logp), run.taxonomy, about.fingerprint)


def _frame(table: pd.DataFrame, across_sources: bool) -> pd.DataFrame:
    frame = table[[*external.IDENTITY, *described.present(table)]]
    return frame.assign(**{PERSON: identities.persons(table, True)}) if across_sources else frame
