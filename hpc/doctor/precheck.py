"""Does a study fit its data? Checks everything that can be known before a run starts."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from hpc.search import leakage
from hpc.studies import cells
from hpc.studies.cells import Cell
from hpc.studies.study import Study
from leukotree import tree_choice
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.evaluation import costs
from leukotree.spec import RunSpec, tree_has_effect

LOOKED_AT = (
    *("variant", "tree", "data", "backbone.name", "backbone.weights", "optim.batch_size"),
    *(
        f"loss.{key}"
        for key in ("kind", "weighting", "level_weights", "isolation", "leader", "branch_blocks")
    ),
    *(f"engine.{key}" for key in ("strategy", "offload", "compile", "micro_batch")),
)
"""The fields of a spec that decide whether it can run on its data."""


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """The context in which nothing is queued or begun while the server of the shards is away: InputError is
    raised, and Preempted in a job, which is then queued again."""
    try:
        yield
    except RunFailed as error:
        if error.kind != "server":
            raise
        if "SLURM_JOB_ID" in os.environ:
            raise Preempted(str(error), "server") from error
        raise InputError(
            f"{error}; nothing was begun; see that the address is right and its server up"
        ) from error


@answering()
def check_data(study: Study, grid: Sequence[Cell] | None = None) -> None:
    """Check that the study can be reported, then the data set, its folds, that they share no patient and no
    copy of an image, and that the costs name leaves of the data. Raises InputError.

    grid: the cells, where they were expanded before.
    """
    from leukotree.data import duplicates
    from leukotree.data.dataset import Dataset

    check_report(study, grid)
    dataset = Dataset.open(study.base.data.shards)
    if dataset.folds != study.folds.outer:
        raise InputError(
            f"{dataset.name}: packed with {dataset.folds} folds, but folds.outer is "
            f"{study.folds.outer}; make them equal"
        )
    costs.matrix(study.costs, dataset.taxonomy, f"study {study.study}: costs")
    for repeat in range(study.folds.repeats):
        dealt = Dataset.open(study.base.data.shards, repeat=repeat)
        leakage.check_index(dealt)
        duplicates.refuse(dealt)


def check_report(study: Study, grid: Sequence[Cell] | None = None) -> None:
    """Check what a report of the study would refuse after all its runs: a grid with a cell that no run can
    be, and comparisons of arms that the study cannot have. Raises InputError."""
    from leukotree.report.arms import check_primary

    if study.has_grid:
        expanded = cells.expand(study) if grid is None else grid
        check_primary(study.model_dump(mode="json"), cells.rows(expanded))


def check_search(study: Study, ranks: int = 1) -> None:
    """Check the data, and every kind of trial that the search may draw, on `ranks` processes. Raises
    InputError."""
    from leukotree.training import plan

    check_data(study)
    first = study.search_ids[0]
    trials = [
        _trial(study, variant, corner, first.test_fold)
        for variant in study.variants
        for corner in _corners(study, variant)
    ]
    for spec in _kinds(trials):
        plan.check(spec, ranks)
    # Each outer fold has inner folds of its own.
    places = {(search_id.repeat, search_id.test_fold) for search_id in study.search_ids}
    for repeat, fold in sorted(places - {(first.repeat, first.test_fold)}):
        plan.check(trials[0].override({"data.test_fold": fold, "data.repeat": repeat}), ranks)


@answering()
def check_runs(specs: Iterable[RunSpec], ranks: int = 1) -> None:
    """Check the runs of outer folds or cells of a grid, on `ranks` processes. Raises InputError."""
    from leukotree.training import plan, questions

    kinds = _kinds(specs)
    for spec in kinds:
        plan.check(spec, ranks, questions.kept())
    _check_trees(kinds)


def _check_trees(specs: Iterable[RunSpec]) -> None:
    """Raises InputError where two names mean the same tree: its runs would be done twice, and count as two
    trees."""
    from leukotree.data import trees

    names: dict[Any, str] = {}
    for spec in specs:
        if not tree_has_effect(spec.variant, spec.loss):
            continue
        name, tree = tree_choice.name(spec.tree), trees.open_data(spec).taxonomy
        first = names.setdefault((spec.data.shards, trees.decided_sets(tree)), name)
        if first != name:
            raise InputError(
                f"tree: {first} and {name} are the same tree of {spec.data.shards}, up to the order of "
                "children and the names of inner nodes; leave one out, or give another seed"
            )


def _trial(study: Study, variant: str, corner: dict[str, Any], fold: int) -> RunSpec:
    try:
        return study.trial_specs(variant, corner, fold)[0]
    except InputError as error:
        if not corner:
            raise
        values = ", ".join(f"{key}={value}" for key, value in corner.items())
        raise InputError(f"search.space: {values} do not go together: {error}") from None


def _corners(study: Study, variant: str) -> Iterator[dict[str, Any]]:
    """All combinations of the searched choices that are in LOOKED_AT."""
    choices = {
        key: axis.choice for key, axis in study.space(variant).items() if axis.choice and key in LOOKED_AT
    }
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _kinds(specs: Iterable[RunSpec]) -> Collection[RunSpec]:
    """One spec for each combination of the fields in LOOKED_AT."""
    return {operator.attrgetter(*LOOKED_AT)(spec): spec for spec in specs}.values()
