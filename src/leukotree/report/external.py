"""The runs of an arm on another data set, by `leukotree evaluate`, as the report reads them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree.evaluation import decide
from leukotree.records import external
from leukotree.records.external import About
from leukotree.report.summary import Arm, Run, StudySummary, identity


class Outside(NamedTuple):
    """The runs of an arm on another data set of N images."""

    about: About
    images: pd.DataFrame
    """N rows, as in `Run`."""
    true: np.ndarray
    """(N,) leaf indices."""
    runs: tuple[Run, ...]
    """The R runs that were evaluated."""
    predicted: np.ndarray
    """(R, N) leaf indices, decided by the study's rule on the run's own tree."""
    logp: tuple[np.ndarray, ...]
    """R of (N, E) log p(child | parent) on the tree of the data set of the study."""
    absent: int
    """Number of runs of the arm that were not evaluated, or that had other weights then."""


def names(summary: StudySummary) -> list[str]:
    """The names of the data sets that the runs of a study were evaluated on."""
    roots = dict.fromkeys(run.folder.parent for run in summary.runs)
    return list(dict.fromkeys(name for root in roots for name in external.names(root)))


def outside(arm: Arm, name: str, rule: decide.Rule) -> Outside | None:
    """The runs of an arm on the data set of this name. None where none was evaluated. Raises InputError for a
    damaged file."""
    place = external.folder(arm.runs[0].folder.parent, name)
    about = external.read_about(place)
    if about is None:
        return None
    found = []
    for run in arm.runs:
        own = run.own.taxonomy if run.own else run.taxonomy
        if (stored := external.read(place, run.folder, own, about)) is not None:
            found.append((run, own, stored))
    if not found:
        return None
    tree, frame = arm.runs[0].taxonomy, found[0][2].frame
    predicted, logp = [], []
    for _, own, stored in found:
        decided = decide.leaves(stored.logp, own, rule)
        same = own.ordered_as(tree)
        predicted.append(decided if same else decide.leaf_places(own, tree)[decided])
        logp.append(stored.logp if same else decide.on_tree(stored.logp, own, tree))
    return Outside(
        about,
        identity(frame),
        pd.Index(tree.leaves).get_indexer(pd.Index(frame["leaf"])),
        tuple(run for run, _, _ in found),
        np.stack(predicted),
        tuple(logp),
        len(arm.runs) - len(found),
    )
