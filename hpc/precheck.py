"""Does a study fit its data? Everything that can be known before a run starts, with the data set at hand."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hpc import leaks
from hpc.study import Study
from leukotree.errors import InputError
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.data.dataset import Dataset

LOOKED_AT = (
    *("variant", "data", "backbone", "engine", "optim.batch_size"),
    *(f"loss.{key}" for key in ("kind", "weighting", "level_weights", "isolation", "leader", "branch_blocks")),
)
"""What of a spec decides whether it can be run on its data."""


def check(study: Study, ranks: int = 1, trial_ranks: int = 1) -> None:
    """Folds, backbones, losses, batch sizes. Trials run on `trial_ranks` processes, outer folds on `ranks`. Raises InputError."""
    from leukotree import train
    from leukotree.data.dataset import Dataset

    _check_folds(study, Dataset.open(study.base.data.shards))
    # Of the variants `multilabel` knows every key.
    most = "multilabel" if "multilabel" in study.variants else study.variants[0]
    left_out = study.units[0].test_fold
    trials, runs = [], []
    empty: list[tuple[str, dict[str, Any]]] = [(variant, {}) for variant in study.variants]
    for variant, corner in [*empty, *((most, corner) for corner in _corners(study, most))]:
        try:
            trials.append(study.trial_specs(variant, corner, left_out)[0])
            runs.append(study.spec(variant, corner, left_out, study.seeds[0]))
        except InputError as error:
            values = ", ".join(f"{key}={value}" for key, value in corner.items())
            raise InputError(f"search.space: {values} do not go together: {str(error).removeprefix('override: ')}") from None
    for specs_of_search, processes in ((trials, trial_ranks), (runs, ranks)):
        for spec in _kinds(specs_of_search):
            train.check(spec, processes)
    for fold in sorted({unit.test_fold for unit in study.units} - {left_out}):  # the inner folds beside each are others
        train.check(study.trial_specs(most, {}, fold)[0], trial_ranks)


def check_grid(study: Study, specs_of_grid: Iterable[RunSpec], ranks: int = 1) -> None:
    """Everything that can be known of a grid's runs before one starts, with the data sets at hand. Raises InputError."""
    from leukotree import train

    for spec in _kinds(specs_of_grid):
        _check_folds(study, train.check(spec, ranks))


def _corners(study: Study, variant: str) -> Iterator[dict[str, Any]]:
    """The values of the searched choices that are looked at, in all combinations."""
    choices = {key: axis.choice for key, axis in study.space(variant).items() if axis.choice and _is_looked_at(key)}
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _is_looked_at(key: str) -> bool:
    return any(f"{key}.".startswith(f"{known}.") for known in LOOKED_AT)


def _kinds(specs: Iterable[RunSpec]) -> Iterable[RunSpec]:
    """One spec for each combination of what is looked at."""
    return {operator.attrgetter(*LOOKED_AT)(spec): spec for spec in specs}.values()


def _check_folds(study: Study, dataset: Dataset) -> None:
    if dataset.folds != study.folds.outer:
        raise InputError(
            f"{dataset.folder}: packed with {dataset.folds} folds, but folds.outer is {study.folds.outer}; make them equal"
        )
    leaks.check_index(dataset)
