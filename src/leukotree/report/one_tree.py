"""The runs of a study on one label tree: that of the data set. A run may have been trained on another tree
of the same leaves.

Leaf probabilities do not depend on a tree. From them, the log-probabilities of the edges of another tree
follow. The leaves that a run predicts are decided on its own tree, and are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from leukotree.data import fingerprint
from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.records import runfolder
from leukotree.report.damage import damaged
from leukotree.report.summary import Arm, OwnTree, Run
from leukotree.taxonomy import Taxonomy


def on_one_tree(
    arms: Sequence[Arm], root: Path, shards: str, with_costs: Callable[[Taxonomy], Taxonomy]
) -> tuple[list[Arm], Taxonomy | None]:
    """The arms with their runs on the tree of the data set, and this tree; None without a run. `with_costs`
    gives this tree the costs of the study.

    Raises InputError for runs whose trees do not have the same leaves, and where the tree of the data set is
    not known.
    """
    runs = [run for arm in arms for run in arm.runs]
    if not runs:
        return list(arms), None
    tree = with_costs(_of_data(runs, shards))
    _check(runs, tree, root)
    return [replace(arm, runs=tuple(_on(run, tree) for run in arm.runs)) for arm in arms], tree


def _of_data(runs: Sequence[Run], shards: str) -> Taxonomy:
    """The tree of the data set: of a run that has no tree of its own, or of the shards."""
    if first := next((run for run in runs if run.tree is None), None):
        return first.taxonomy
    if packed := fingerprint.packed(shards):
        return Taxonomy.from_nested(json.loads(packed.tree))
    if all(run.taxonomy == runs[0].taxonomy for run in runs):
        return runs[0].taxonomy
    raise InputError(
        f"{shards}: not here, and no run has the label tree of the data, on which trees are compared; put "
        "the packed folder in its place"
    )


def _check(runs: Sequence[Run], tree: Taxonomy, root: Path) -> None:
    """Raises InputError for a run with other leaves, or with another tree than a run of the same choice."""
    first_of: dict[str | None, Run] = {}
    for run in runs:
        first = first_of.setdefault(run.tree, run)
        same = run.taxonomy.ordered_as(first.taxonomy)
        if not same or sorted(run.taxonomy.leaves) != sorted(tree.leaves):
            other = first.name if not same else runs[0].name
            raise damaged(root / run.name / runfolder.TAXONOMY, f"differs from that of {other}")


def _on(run: Run, tree: Taxonomy) -> Run:
    own = run.taxonomy
    if own.ordered_as(tree):
        return run
    places = decide.leaf_places(own, tree)
    return replace(
        run,
        taxonomy=tree,
        true=places[run.true],
        predicted=places[run.predicted],
        logp=decide.on_tree(run.logp, own, tree),
        own=OwnTree(own, run.logp),
    )
