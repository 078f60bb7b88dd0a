"""What a spec will train, known before a run starts: its data set, its split, its stages and their losses."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from leukotree.data import duplicates, folds, trees
from leukotree.data.dataset import Dataset
from leukotree.distributed import strategies
from leukotree.errors import InputError
from leukotree.log import logger
from leukotree.models import isolated, terms
from leukotree.models.stages import Stage, stages
from leukotree.spec import PLAIN, OptimSpec, RunSpec
from leukotree.taxonomy import Taxonomy
from leukotree.training.footprint import footprint
from leukotree.training.questions import DIRECT, Questions

if TYPE_CHECKING:
    from leukotree.models.objective import Objective


@dataclass(frozen=True)
class StagePlan:
    """A stage with its training images and its loss."""

    stage: Stage
    rows: np.ndarray
    """Rows of the data set's index: the training images that give the stage a loss."""
    among: np.ndarray
    """Rows of all training images of the run."""
    images: int
    """Images of an epoch: those of the stage, for a member of an ensemble those of its decision."""
    spec: RunSpec
    taxonomy: Taxonomy
    """The tree of the run."""
    leaf_counts: np.ndarray
    """(L,) training images of each leaf that the stage trains on."""

    @cached_property
    def objective(self) -> Objective:
        """The loss of the stage."""
        from leukotree.models.objective import Objective  # loads torch

        return Objective(self.stage, self.taxonomy, self.spec, self.leaf_counts)

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels of the loss."""
        return terms.levels(self.stage, self.taxonomy, self.spec)

    def steps_before(self, epoch: int, optim: OptimSpec) -> int:
        """How many steps the first `epoch` epochs take together. A variant of PLAIN has none."""
        return 0 if self.spec.variant in PLAIN else optim.steps_before(epoch, self.images)


@dataclass(frozen=True)
class Plan:
    """A checked run. `check` makes it, training uses it."""

    spec: RunSpec
    dataset: Dataset
    """The data, on the tree of the run."""
    train_rows: np.ndarray
    """Rows of the data set's index that the run trains on."""
    eval_rows: np.ndarray
    """Rows that it scores."""
    stages: tuple[StagePlan, ...]


def check(spec: RunSpec, ranks: int = 1, ask: Questions = DIRECT) -> Plan:
    """The plan of a run on `ranks` processes. `ask`: who answers what concerns its models.

    Raises InputError for everything that can be known before a run is queued: an unknown backbone, missing
    shards, a tree that lacks a leaf, copies of an image in two folds, a fold that does not exist, a batch
    that the ranks do not divide, a loss that does not fit the tree.
    """
    if spec.variant not in PLAIN:
        _check_batch(spec, ranks)
    strategies.check(spec)
    ask.check_backbone(spec.backbone)
    if spec.backbone.train in ("last", "lora") or spec.optim.layer_decay != 1:
        ask.check_trained(spec)
    dataset = trees.open_data(spec)
    duplicates.refuse(dataset)
    train_rows, eval_rows = folds.split(dataset.index, spec.data)
    for purpose, rows in (("train on", train_rows), ("score", eval_rows)):
        if not len(rows) and not (spec.data.all_folds and purpose == "score"):
            raise InputError(f"data: test_fold {spec.data.test_fold} leaves no images to {purpose}")
    parts = []
    for stage in stages(spec.variant, dataset.taxonomy):
        isolated.check(spec, stage.levels, ask.blocks)
        try:
            parts.append(plan_stage(spec, stage, train_rows, dataset))
        except InputError as error:
            raise InputError(f"{dataset.name}: {error}") from error
    return Plan(spec, dataset, train_rows, eval_rows, tuple(parts))


def _check_batch(spec: RunSpec, ranks: int) -> None:
    batch, micro = spec.optim.batch_size, spec.engine.micro_batch
    if batch % ranks:
        raise InputError(
            f"optim.batch_size: {batch} images do not divide over {ranks} ranks; use a multiple of {ranks}"
        )
    if micro and batch // ranks % micro:
        raise InputError(f"engine.micro_batch: {micro} does not divide the {batch // ranks} images of a rank")


def plan_stage(spec: RunSpec, stage: Stage, rows: np.ndarray, dataset: Dataset) -> StagePlan:
    """A stage's part of the run's training images `rows`, and its loss. Raises InputError as
    `terms.check`."""
    used = stage.trains_on[dataset.leaf_ids[rows]]
    own = rows if used.all() else rows[used]  # no second copy of millions of rows
    counts = np.bincount(dataset.leaf_ids[own], minlength=len(dataset.taxonomy.leaves))
    images = len(own)
    if stage.decision is not None:
        column = list(dataset.taxonomy.decisions).index(stage.decision)
        images = int((dataset.taxonomy.choices[dataset.leaf_ids[rows], column] >= 0).sum())
    terms.check(stage, dataset.taxonomy, spec, counts)
    if spec.variant == "neighbours" and spec.plain.k > len(own):
        raise InputError(f"plain.k: {spec.plain.k} neighbours, but only {len(own)} training images")
    return StagePlan(stage, own, rows, images, spec, dataset.taxonomy, counts)


def check_model(spec: RunSpec, dataset: Dataset, ask: Questions = DIRECT) -> None:
    """Raises InputError where the models cannot be built, or the weights do not fit. Slower than `check`.
    Says once where the weights were made for images of another size."""
    footprint(spec, dataset, ask)
    ask.fits(spec, stages(spec.variant, dataset.taxonomy)[0], dataset.size)
    if note := ask.note(spec.backbone, dataset.size):
        _say(note)


@functools.lru_cache(maxsize=64)  # once, not for each run of a study
def _say(note: str) -> None:
    logger.warning(note)
