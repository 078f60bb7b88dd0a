"""Does a study fit its data? Everything that can be known before a run starts, with the data set at hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hpc import leaks
from hpc.study import Study
from leukotree.errors import InputError
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.data.dataset import Dataset


def check(study: Study, ranks: int = 1, trial_ranks: int = 1) -> None:
    """Folds, backbones, losses, batch sizes. Trials run on `trial_ranks` processes, outer folds on `ranks`. Raises InputError."""
    from leukotree import train
    from leukotree.data.dataset import Dataset

    _check_folds(study, Dataset.open(study.base.data.shards))
    # One corner per value: what train.check looks at does not depend on two searched keys at once, and on the variant only in
    # that `multilabel` knows every key.
    most = "multilabel" if "multilabel" in study.variants else study.variants[0]
    corners = [(most, {key: value}) for key, axis in study.space(most).items() for value in axis.choice or ()]
    left_out = study.units[0].test_fold
    for variant, corner in [*((variant, {}) for variant in study.variants), *corners]:
        train.check(study.trial_specs(variant, corner, left_out)[0], trial_ranks)
        train.check(study.spec(variant, corner, left_out, study.seeds[0]), ranks)
    for fold in sorted({unit.test_fold for unit in study.units} - {left_out}):  # the inner folds beside each are others
        train.check(study.trial_specs(most, {}, fold)[0], trial_ranks)


def check_grid(study: Study, specs_of_grid: Iterable[RunSpec], ranks: int = 1) -> None:
    """Everything that can be known of a grid's runs before one starts, with the data sets at hand. Raises InputError."""
    from leukotree import train

    # What train.check looks at, once for each combination of it.
    kinds = {
        (s.variant, s.data, s.backbone, s.loss.isolation, s.loss.leader, s.loss.branch_blocks, s.loss.level_weights,
         s.optim.batch_size, s.engine): s
        for s in specs_of_grid
    }  # fmt: skip
    for spec in kinds.values():
        _check_folds(study, train.check(spec, ranks))


def _check_folds(study: Study, dataset: Dataset) -> None:
    if dataset.folds != study.folds.outer:
        raise InputError(
            f"{dataset.folder}: packed with {dataset.folds} folds, but folds.outer is {study.folds.outer}; make them equal"
        )
    leaks.check_index(dataset)
